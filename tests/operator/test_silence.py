"""A leader and an operator that disagree about TLS: said in a sentence until they agree."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_operator import reports
from stageline_operator.cache import Key
from stageline_operator.healing import Healing
from stageline_operator.observed import PipelineKey
from stageline_operator.planning import Planning
from stageline_operator.reports import Leader, Reports
from stageline_operator.silence import disagreement
from stageline_operator.status import status
from support.certificates import DAY, Authority
from support.objects import NOW, keys, record, scene
from support.processes import until

KEY, FIRST = Key("default", "llama"), PipelineKey("f00", 0)
OURS, THEIRS = Authority(), Authority()


class Speaker(services.PipelineServicer):
    """A leader that is ready, and goes on listening."""

    def Watch(self, request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        yield pb.PipelineReport(pipeline="llama-f00-0", revision="f00", state=pb.READY)
        ended.wait(30)


@contextlib.contextmanager
def leading(credentials, port=0):
    """A leader at a port of loopback, until the block ends."""
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    services.add_PipelineServicer_to_server(Speaker(), server)
    address = f"127.0.0.1:{port}"
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait(5)


def shown(made_by=OURS, trusts=OURS, **how):
    """What a leader shows, and whom it trusts."""
    pair = made_by.issue("stage", **how)
    return grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], trusts.pair.certificate, require_client_auth=True
    )


def badge(key):
    """The operator's own."""
    pair = OURS.issue("operator")
    return grpc.ssl_channel_credentials(OURS.pair.certificate, pair.key, pair.certificate)


@contextlib.asynccontextmanager
async def listening(port, tls, monkeypatch):
    monkeypatch.setattr(reports, "ASK_WHY_SECONDS", 0.2)
    made = Reports(lambda key, wait: None, port, badge)
    made.follow(KEY, {FIRST: Leader("127.0.0.1", "llama-f00-0", "f00", tls)})
    yield made
    await made.stop()


CASES = {
    "a leader without TLS": (None, True, "it speaks no TLS"),
    "an operator without TLS": (shown(), False, "it hangs up on whoever has no certificate"),
    "a certificate of another authority": (
        shown(made_by=THEIRS), True, "the certificate that it shows is none of this resource's",
    ),
    "a certificate that has run out": (
        shown(ago=2 * DAY), True, "the certificate that it shows has run out",
    ),
    "a leader that trusts another authority": (
        shown(trusts=THEIRS), True, "it does not take the operator's certificate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_what_they_disagree_about_is_said_and_forgotten_when_they_agree(case, monkeypatch):
    credentials, tls, words = CASES[case]
    with leading(credentials) as port:
        async with listening(port, tls, monkeypatch) as heard:
            said = await until(lambda: heard.silences(KEY).get(FIRST), what="it is said why")
            assert said.startswith(words)
            assert "delete the pod" in said, "what to do"
    with leading(shown() if tls else None, port):
        async with listening(port, tls, monkeypatch) as heard:
            await until(lambda: heard.of(KEY), what="the leader is heard")
            assert heard.silences(KEY) == {}


async def test_it_is_over_as_soon_as_the_leader_has_the_right_certificate(monkeypatch):
    async with contextlib.AsyncExitStack() as stack:
        with leading(shown(made_by=THEIRS)) as port:
            heard = await stack.enter_async_context(listening(port, True, monkeypatch))
            await until(lambda: heard.silences(KEY), what="it is said why")
        with leading(shown(), port):
            await until(lambda: heard.of(KEY), what="the leader is heard")
            assert heard.silences(KEY) == {}


async def test_a_leader_that_is_not_there_yet_is_no_disagreement(monkeypatch):
    with leading(None) as port:
        pass
    async with listening(port, True, monkeypatch) as heard:
        monkeypatch.setattr(reports, "_SELDOM_SECONDS", 0.1)
        asked = []

        def noted(details, *, tls):
            asked.append(details)
            return disagreement(details, tls=tls)

        monkeypatch.setattr(reports, "disagreement", noted)
        await until(lambda: len(asked) > 1, what="gRPC was asked twice")
        assert heard.silences(KEY) == {}
        assert "refused" in str(asked)


def test_the_condition_has_the_sentence():
    (key,) = keys("aaa", 0)
    found = scene(key, reports={}, silences={key: "it speaks no TLS: delete the pod"})
    told = status(found, Planning(record("aaa")), Healing(), "", NOW).status
    said = {one["type"]: (one["reason"], one["message"]) for one in told["conditions"]}
    assert said["PipelineConnected"] == (
        "PipelineSilent",
        "a canary microbatch went round 0 of 1 rings; pipeline 0 (llama-aaa-0): its leader, pod "
        "llama-aaa-0-0, is not heard: it speaks no TLS: delete the pod",
    )
