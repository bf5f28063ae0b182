"""Which sessions and which links a worker accepts."""

import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline_wire import Frame, FrameError, Kind
from stageline_worker.ring.member import Identity, objection, stranger
from stageline_worker.ring.messages import Hello, hello_frame, read_hello

ME = Identity(stage=1, stages=3, plan_hash="p", revision="r1", incarnation=101)


def offer(**changes):
    fields = {
        "session": 5, "plan_hash": "p", "revision": "r1", "incarnations": [100, 101, 102], **changes
    }  # fmt: skip
    return pb.OpenSession(**fields)


def hello(**changes):
    fields = {
        "session": 5, "plan_hash": "p", "revision": "r1", "stage": 0, "incarnation": 100, **changes
    }  # fmt: skip
    return Hello(**fields)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"plan_hash": "q"}, "it has plan p, the session is of plan q"),
        ({"revision": "r2"}, "it has revision r1, the session is of revision r2"),
        ({"incarnations": [100, 101]}, "it knows 3 stages, the session has 2"),
        ({"incarnations": [100, 99, 102]}, "the session was opened with an earlier life of it"),
    ],
)
def test_a_session_that_does_not_match_is_refused(changes, sentence):
    assert objection(ME, offer(**changes)) == sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"stage": 2}, "stage 1 is called by stage 0, not by stage 2"),
        ({"plan_hash": "q"}, "stage 0 called with plan q of r1"),
        ({"revision": "r2"}, "stage 0 called with plan p of r2"),
        ({"incarnation": 99}, "stage 0 called in another life than the session was opened with"),
    ],
)
def test_a_link_that_is_none_of_the_sessions_is_refused(changes, sentence):
    assert stranger(ME, offer(), hello(**changes)) == sentence


def test_the_first_stage_is_called_by_the_last():
    me = Identity(stage=0, stages=3, plan_hash="p", revision="r1", incarnation=100)
    assert stranger(me, offer(), hello(stage=2, incarnation=102)) is None


def test_a_hello_comes_back_from_its_frame():
    assert read_hello(hello_frame(hello())) == hello()


@pytest.mark.parametrize(
    "meta",
    [{}, {"stage": 1}, {"plan_hash": "p", "revision": "r", "stage": "x", "incarnation": 1},
     {"plan_hash": "p", "revision": "r", "stage": 1, "incarnation": 1, "more": 1}],
)  # fmt: skip
def test_a_hello_that_lacks_something_is_refused(meta):
    with pytest.raises(FrameError, match="HELLO"):
        read_hello(Frame(Kind.HELLO, 1, meta=meta))
