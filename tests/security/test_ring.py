"""A ring whose stages ask each other for certificates, and what others may do with its ports."""

from datetime import UTC, datetime

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_operator.authority import Pair
from stageline_operator.rotation import AUTHORITY_LIFE, HOLDERS, SPREAD, certificates
from stageline_wire.credentials import CHANNEL_OPTIONS, Credentials
from stageline_worker.server import WorkerError, WorkerServer
from stageline_worker.transport.grpc_outlet import METHOD as LINK
from support.certificates import DAY, Authority, put
from support.pipeline import QUICK, LocalPipeline, free_ports, stage_documents
from support.toy import toy, toy_tokens

ROLES = ("stage", "router", "operator")
PROMPT = [5, 6, 7]


@pytest.fixture(scope="module")
def ours():
    return Authority()


def ring(folder, stages=2, load=toy, **fields):
    """A pipeline whose stages have the certificate in a folder."""
    fields = {"credentials": str(folder / "stage"), **fields}
    pipeline = LocalPipeline(stage_documents("/toy", [1] * stages, **fields), load, QUICK)
    pipeline.credentials = Credentials.load(folder / "router")
    return pipeline


@pytest.fixture(scope="module")
def folder(ours, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    for role in ROLES:
        ours.folder(folder / role, role)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder):
    """For tests that only call it."""
    health = f"127.0.0.1:{free_ports(1)[0]}"
    with ring(folder, stages=1, health=health) as pipeline:
        pipeline.start()
        pipeline.wait_ready()
        yield pipeline


@pytest.mark.parametrize("transport", ["auto", "grpc"])
def test_a_ring_turns_over_mutual_tls(folder, transport):
    with ring(folder, stages=3, transport=transport) as pipeline:
        pipeline.start()
        pipeline.wait_ready()
        with pipeline.router() as router:
            router.generate("one", PROMPT, max_tokens=6, ignore_eos=True)
            assert router.tokens_of("one") == toy_tokens(PROMPT, 6, stages=3)


# What others may do


def call(method, credentials, leader, seconds=10):
    """The status with which a call ends; the call is one of nothing."""
    if credentials is None:
        channel = grpc.insecure_channel(leader)
    else:
        channel = grpc.secure_channel(leader, credentials, options=CHANNEL_OPTIONS)
    with channel:
        try:
            for _ in channel.stream_stream(method)(iter([b""]), timeout=seconds):
                return grpc.StatusCode.OK
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


METHODS = {
    LINK: {"stage"},
    "/stageline.v1.Control/Attach": {"stage"},
    "/stageline.v1.Pipeline/Serve": {"router"},
    "/stageline.v1.Pipeline/Watch": {"router", "operator"},
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", METHODS)
def test_a_certificate_opens_what_its_role_needs_and_nothing_else(pipeline, folder, method, role):
    code = call(method, Credentials.load(folder / role).channel(), pipeline.leader)
    assert (code is not grpc.StatusCode.PERMISSION_DENIED) == (role in METHODS[method])
    assert code is not grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("method", METHODS)
def test_plaintext_and_foreign_certificates_open_nothing(pipeline, ours, method):
    theirs = Authority("default/other")
    late = ours.issue("stage", ago=2 * DAY, life=DAY)
    of_another = theirs.issue("stage")
    strangers = {
        "in plaintext": None,
        "without a certificate": grpc.ssl_channel_credentials(ours.pair.certificate),
        "of another authority": grpc.ssl_channel_credentials(
            ours.pair.certificate, of_another.key, of_another.certificate
        ),
        "run out": grpc.ssl_channel_credentials(ours.pair.certificate, late.key, late.certificate),
    }
    for who, credentials in strangers.items():
        code = call(method, credentials, pipeline.leader)
        assert code is grpc.StatusCode.UNAVAILABLE, f"{who}: {code}"


def test_a_stage_of_another_authority_does_not_become_part_of_a_ring(folder, tmp_path):
    foreign = Authority("default/other").folder(tmp_path / "foreign", "stage")
    documents = stage_documents("/toy", [1, 1], credentials=str(folder / "stage"))
    documents[1] = documents[1].model_copy(update={"credentials": str(foreign)})
    with LocalPipeline(documents, toy, QUICK) as pipeline:
        pipeline.credentials = Credentials.load(folder / "router")
        pipeline.start()
        report = pipeline.wait_until(
            lambda report: any(stage.state == pb.LOADED for stage in report.stages), "a stage"
        )
        assert {stage.stage for stage in report.stages} == {0}
        assert report.state == pb.WAITING


# Health


def test_probes_are_answered_in_plaintext_on_a_port_that_has_nothing_else(pipeline):
    with grpc.insecure_channel(pipeline.documents[0].health) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "stage"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            next(services.PipelineStub(channel).Watch(pb.WatchRequest(), timeout=10))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.RpcError) as refused:
            next(health.Watch(health_pb2.HealthCheckRequest(), timeout=10))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED, "each would hold a thread"


def test_a_worker_whose_certificate_cannot_be_used_says_so_and_does_not_start(tmp_path):
    (document,) = stage_documents("/toy", [1], credentials=str(tmp_path / "nothing"))
    with pytest.raises(WorkerError, match=r"stage 0 cannot speak TLS: there is no .*ca\.crt"):
        WorkerServer(document, toy, QUICK)


# Rotation


class Secrets:
    """Those of a resource, and what of them has come into its pods."""

    def __init__(self, folder):
        self.folder = folder
        self.authority, self.held = None, {}

    def as_of(self, now):
        wanted = certificates(self.authority, self.held, "default/llama", now)
        self.authority, self.held = wanted.authority.data, dict(wanted.held)
        return authorities(self.held["stage"]["ca.crt"])

    def bring(self, *roles):
        for role in roles:
            files = self.held[role]
            put(self.folder / role, files["ca.crt"], Pair(files["tls.crt"], files["tls.key"]))


def authorities(pem):
    return pem.count(b"BEGIN CERTIFICATE")


def test_from_one_authority_to_the_next_no_stream_breaks_and_every_dial_succeeds(tmp_path):
    due = datetime.now(UTC) - 1.5 * DAY
    secrets = Secrets(tmp_path)
    secrets.as_of(due - AUTHORITY_LIFE * 2 / 3)
    assert secrets.as_of(due) == 2, "the next authority is trusted beside the current one"
    secrets.bring(*HOLDERS)

    def slowly(document, progress):
        return toy(document, progress, delay=0.02)

    with ring(tmp_path, load=slowly) as pipeline:
        pipeline.start()
        before = pipeline.wait_ready()
        with pipeline.router() as router:
            router.generate("one", PROMPT, max_tokens=40, ignore_eos=True)
            router.wait(lambda: router.tokens["one"])
            assert secrets.as_of(due + SPREAD) == 2, "it gives certificates now"
            for role in ("stage", "router"):  # one kubelet is later than the other
                secrets.bring(role)
                assert pipeline.report().sessions == before.sessions
            assert secrets.as_of(due + 2 * SPREAD) == 1, "the one before is trusted no more"
            for role in ("router", "stage"):
                secrets.bring(role)
                assert pipeline.report().sessions == before.sessions
            assert router.tokens_of("one") == toy_tokens(PROMPT, 40, stages=2)
        pipeline.workers[1].stop()
        pipeline.workers[1] = WorkerServer(pipeline.documents[1], slowly, QUICK)
        pipeline.workers[1].start()
        pipeline.wait_ready(sessions=before.sessions + 1)
