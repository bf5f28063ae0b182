"""Listening to leaders: real gRPC streams, on loopback."""

import asyncio
import queue
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_operator.cache import Cache, Key
from stageline_operator.labels import OWNER, PIPELINE, REVISION, STAGE
from stageline_operator.observed import PipelineKey
from stageline_operator.reports import (
    INTRODUCTION_SECONDS,
    NUMBERS_SECONDS,
    Introductions,
    Leader,
    Reports,
    essence,
    leaders,
    reduced,
)
from support.processes import until

KEY, FIRST = Key("default", "llama"), PipelineKey("f00", 0)


def report(state=pb.READY, pipeline="llama-f00-0", revision="f00", **more):
    stages = [pb.WorkerReport(stage=n, state=pb.SERVING, loads=1, microbatches=5) for n in range(2)]
    return pb.PipelineReport(
        pipeline=pipeline, revision=revision, state=state, stages=stages, **more
    )


class Speaker(services.PipelineServicer):
    """A leader that says what a test gives it, to one listener at a time."""

    def __init__(self, port=0):
        self.asked, self._said = [], queue.Queue()
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        services.add_PipelineServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    def say(self, message):
        self._said.put(message)

    def Watch(self, request, context):
        self.asked.append(request)
        while (message := self._said.get()) is not None:
            yield message

    def stop(self):
        self._said.put(None)
        self._server.stop(0).wait(5)


@pytest.fixture
def speaker():
    speaker = Speaker()
    yield speaker
    speaker.stop()


@pytest.fixture
async def heard(speaker):
    """The Reports under test, and what it told of changes: seconds to wait, in order."""
    changes = []
    reports = Reports(lambda key, wait: changes.append(wait), speaker.port)
    reports.changes = changes
    yield reports
    await reports.stop()


LEADER = Leader("127.0.0.1", "llama-f00-0", "f00")


def newest(reports):
    return reports.of(KEY).get(FIRST)


async def test_the_leader_is_asked_for_what_is_expected_and_its_report_is_kept(speaker, heard):
    heard.follow(KEY, {FIRST: LEADER})
    speaker.say(report(sessions=3, waiting=1, running=2))
    found = await until(lambda: newest(heard), what="the report is kept")
    assert (speaker.asked[0].pipeline, speaker.asked[0].revision) == ("llama-f00-0", "f00")
    assert (found.state, found.sessions) == ("Ready", 3)
    assert [stage.state for stage in found.stages] == ["Serving", "Serving"]
    assert (heard.heard, heard.changes) == (1, [0.0])


async def test_traffic_alone_is_no_news(speaker, heard):
    """A resource under load is looked at for what it says of itself, not for what it does."""
    heard.follow(KEY, {FIRST: LEADER})
    busy = report(waiting=4, running=8)
    busy.stages[0].microbatches = 700
    for said in (report(), busy, report(pb.CONNECTING)):
        speaker.say(said)
    await until(lambda: newest(heard) and newest(heard).state == "Connecting", what="all was heard")
    assert heard.changes == [0.0, 0.0], "a look for each request that comes or goes"


async def test_a_change_of_state_is_news_at_once_and_mere_numbers_are_not(speaker, heard):
    heard.follow(KEY, {FIRST: LEADER})
    first = report()
    busier = report()
    busier.stages[0].microbatches = 6
    busier.stages[0].compute_seconds = 0.01
    for said in (first, first, busier, report(pb.CONNECTING)):
        speaker.say(said)
    await until(lambda: newest(heard) and newest(heard).state == "Connecting", what="all was heard")
    assert heard.changes == [0.0, NUMBERS_SECONDS, 0.0], "repeating oneself is no change at all"


@pytest.mark.parametrize(
    "said",
    [
        report(pipeline="other-f00-0"),
        report(revision="old"),
        report(pb.PIPELINE_STATE_UNSPECIFIED),
        report(99),
    ],
)
async def test_what_another_pipeline_says_or_nobody_understands_is_silence(speaker, heard, said):
    heard.follow(KEY, {FIRST: LEADER})
    speaker.say(report())
    await until(lambda: newest(heard), what="the right leader is heard")
    speaker.say(said)
    await until(lambda: newest(heard) is None, what="the wrong one is not")
    assert heard.changes == [0.0, 0.0]


async def test_a_leader_that_dies_is_silent_and_is_heard_again_when_it_is_back(heard):
    first = Speaker()
    heard._port = first.port
    heard.follow(KEY, {FIRST: LEADER})
    first.say(report())
    await until(lambda: newest(heard), what="the leader is heard")
    first.stop()
    await until(lambda: newest(heard) is None, what="it is silent")
    second = Speaker(first.port)
    try:
        second.say(report())
        await until(lambda: newest(heard), what="it is heard again")
    finally:
        second.stop()


async def test_who_is_followed_no_more_is_forgotten(speaker, heard):
    heard.follow(KEY, {FIRST: LEADER})
    speaker.say(report())
    await until(lambda: newest(heard), what="the report is kept")
    heard.follow(KEY, {FIRST: LEADER})
    assert newest(heard), "the same leader keeps its stream"
    heard.follow(KEY, {})
    assert (dict(heard.of(KEY)), heard.heard) == ({}, 0)


async def test_a_leader_at_another_address_is_another_leader(speaker, heard):
    heard.follow(KEY, {FIRST: LEADER})
    speaker.say(report())
    await until(lambda: newest(heard), what="the report is kept")
    heard.follow(KEY, {FIRST: Leader("127.0.0.2", "llama-f00-0", "f00")})
    assert newest(heard) is None, "what the old one said holds no more"


async def test_no_task_is_left_behind():
    before = asyncio.all_tasks()
    reports = Reports(lambda key, wait: None, 1)
    reports.follow(KEY, {PipelineKey("f00", n): LEADER for n in range(20)})
    await asyncio.sleep(0.05)
    await reports.stop()
    # gRPC's own tasks end when its core has told them that their calls are cancelled.
    await until(lambda: asyncio.all_tasks() <= before, what="every task has ended")


def pod(stage=0, ip="10.0.0.1", phase="Running", name="llama-f00-0-0", labels=None):
    owner = {"kind": "PipelineDeployment", "name": "llama", "uid": "u", "controller": True}
    told = {OWNER: "llama", REVISION: "f00", PIPELINE: "0", STAGE: str(stage)}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "2",
                     "labels": told if labels is None else labels, "ownerReferences": [owner]},
        "status": {"phase": phase, **({"podIP": ip} if ip else {})},
    }  # fmt: skip


def observing(*pods):
    cache = Cache()
    cache.heard("ADDED", {
        "apiVersion": "stageline.dev/v1alpha1", "kind": "PipelineDeployment", "spec": {},
        "metadata": {"name": "llama", "namespace": "default", "uid": "u", "resourceVersion": "1"},
    })  # fmt: skip
    for each in pods:
        cache.heard("ADDED", each)
    return cache.observed(KEY)


@pytest.mark.parametrize(
    ("each", "address"),
    [
        (pod(), "10.0.0.1"),
        (pod(ip="fd00::1"), "[fd00::1]"),
        (pod(stage=1), None),
        (pod(ip=""), None),
        (pod(phase="Failed"), None),
        (pod(labels={OWNER: "llama"}), None),
    ],
)
def test_leaders_are_the_pods_of_stage_0_that_can_be_asked(each, address):
    expected = {FIRST: Leader(address, "llama-f00-0", "f00")} if address else {}
    assert leaders(observing(each)) == expected


def test_the_essence_of_a_report_is_what_is_no_mere_number():
    busy, idle = report(running=4), report(running=9)
    busy.stages[0].hop_seconds = 0.5
    assert reduced(busy) != reduced(idle)
    assert essence(reduced(busy)) == essence(reduced(idle))
    idle.stages[0].error = "stage 1 did not answer"
    assert essence(reduced(busy)) != essence(reduced(idle))


def test_strangers_are_given_a_moment_and_acquaintances_none():
    met = Introductions()
    assert met.wait(KEY, {FIRST}, 10.0) == INTRODUCTION_SECONDS
    assert met.wait(KEY, {FIRST}, 11.5) == pytest.approx(INTRODUCTION_SECONDS - 1.5)
    assert met.wait(KEY, set(), 11.6) == 0, "all have spoken"
    assert met.wait(KEY, {FIRST}, 11.7) == 0, "one falls silent: that is news"
    met.forget(KEY)
    assert met.wait(KEY, {FIRST}, 20.0) == INTRODUCTION_SECONDS


def test_patience_with_strangers_ends():
    met = Introductions()
    met.wait(KEY, {FIRST}, 10.0)
    assert met.wait(KEY, {FIRST}, 10.0 + INTRODUCTION_SECONDS) == 0
