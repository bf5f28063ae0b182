"""What must not come into a session: other lives, other sessions, strangers."""

import queue

import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline_worker.ring.messages import Hello, hello_frame
from stageline_worker.server import WorkerServer
from stageline_worker.timing import Timing
from stageline_worker.transport import LinkError
from stageline_worker.transport.grpc_outlet import GrpcOutlet
from support.pipeline import QUICK, free_ports, local_pipeline
from support.toy import toy, toy_tokens

QUICK_HELLO = Timing(beat=0.3, report_gap=0.05, settle=0.05, hello=0.1)


def as_it_was(pipeline, session):
    """The ring still turns in that session, and answers."""
    assert pipeline.report().session == session
    with pipeline.router() as router:
        router.generate(1, [1, 2], max_tokens=5, ignore_eos=True)
        assert router.tokens_of(1) == toy_tokens([1, 2], 5, 3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"session": 99}, "stage 1 is not in session 99"),
        ({"plan_hash": "other"}, "stage 0 called with plan other"),
        ({"revision": "other"}, "of other"),
        ({"stage": 2}, "stage 1 is called by stage 0, not by stage 2"),
        ({"incarnation": 5}, "stage 0 called in another life"),
        ({}, "stage 1 has its link of session"),
    ],
)
def test_a_link_that_is_none_of_the_sessions_is_refused_and_harms_nobody(changes, sentence):
    with local_pipeline("/toy", [1, 1, 1], load=toy, timing=QUICK_HELLO) as pipeline:
        report = pipeline.wait_ready()
        leader = report.stages[0]
        fields = {
            "session": report.session, "plan_hash": leader.plan_hash, "revision": leader.revision,
            "stage": 0, "incarnation": leader.incarnation, **changes,
        }  # fmt: skip
        broken = queue.SimpleQueue()
        hello = hello_frame(Hello(**fields))
        outlet = GrpcOutlet(pipeline.documents[1].listen, hello, broken.put)
        with pytest.raises(LinkError, match=sentence):
            outlet.connect(5.0)
        counted = pipeline.wait_until(lambda r: r.stages[1].refused_frames == 1, "the count")
        assert [stage.refused_frames for stage in counted.stages] == [0, 1, 0]
        as_it_was(pipeline, report.session)


def test_a_second_worker_of_a_stage_does_not_push_out_the_first():
    with local_pipeline("/toy", [1, 1, 1], load=toy) as pipeline:
        report = pipeline.wait_ready()
        (port,) = free_ports(1)
        twin = pipeline.documents[1].model_copy(update={"listen": f"127.0.0.1:{port}"})
        second = WorkerServer(twin, toy, QUICK)
        second.start()
        try:
            assert second.wait(0.5) == ""
            as_it_was(pipeline, report.session)
            assert pipeline.report().stages[1].incarnation == report.stages[1].incarnation
            # With the first gone, the second has the place. Nobody dials it: it is elsewhere.
            pipeline.workers[1].stop()
            pipeline.wait_until(
                lambda r: second.facts.incarnation in {stage.incarnation for stage in r.stages},
                "the second worker's place",
            )
        finally:
            second.stop()


def test_a_ring_whose_canary_fails_is_not_ready_and_says_why():
    def load(document, progress):
        return toy(document, progress, poison=0 if document.stage == 2 else -1)

    with local_pipeline("/toy", [1, 1, 1], load=load) as pipeline:
        report = pipeline.wait_until(lambda r: "canary" in r.message, "the canary's failure")
        assert report.state != pb.READY
        assert (report.sessions, report.waiting) == (0, 0)
        assert (
            "the canary failed: stage 2 failed on this microbatch: ValueError: 0 is poison"
            in report.message
        )
