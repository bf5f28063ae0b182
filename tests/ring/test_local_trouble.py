"""A whole ring in one process that loses a stage, hangs, cannot load, or ends."""

import time

import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline_worker.server import WorkerError, WorkerServer
from stageline_worker.timing import Timing
from support.pipeline import QUICK, LocalPipeline, stage_documents
from support.toy import toy, toy_sums, toy_tokens
from support.toyring import ids, ready_in_ring, ring, slow


@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_stage_that_fails_on_one_microbatch_goes_on_with_the_others(where):
    def load(document, progress):
        # The toy doubles the first token at each stage: 3 enters stage `where` as this.
        return toy(document, progress, poison=3 * 2**where if document.stage == where else -1)

    with ring(load=load) as pipeline, ready_in_ring(pipeline) as router:
        router.generate("good", [1, 1], max_tokens=3, ignore_eos=True)
        router.infer("bad", ids([3]))
        router.generate("bad too", [3], max_tokens=3)
        for request in ("bad", "bad too"):
            failure = router.failure_of(request)
            assert failure.code == "INTERNAL"
            assert failure.message == (
                f"stage {where} failed on this microbatch: ValueError: {3 * 2**where} is poison"
            )
        assert router.tokens_of("good") == toy_tokens([1, 1], 3, 3)
        router.infer("next", ids([5]))
        assert router.answer_of("next")["last"].tolist() == [toy_sums([5], 3)[-1]]
        assert pipeline.report().sessions == 1


def test_a_stage_that_leaves_and_returns_costs_nobody_a_token():
    models = {}

    def load(document, progress):
        return models.setdefault(document.stage, slow(document, progress))

    with ring(load=load) as pipeline, ready_in_ring(pipeline) as router:
        for n in range(3):
            router.generate(n, [n, 1], max_tokens=40, ignore_eos=True)
        router.wait(lambda: router.tokens[2])
        pipeline.workers[1].stop()
        report = pipeline.wait_until(lambda r: len(r.stages) == 2, "stage 1's absence")
        assert report.state == pb.WAITING
        assert report.message == (
            "stage 1 is not there; the last one ended: stage 1 of llama-0 is leaving"
        )
        assert (report.waiting, report.sequences) == (3, 0)
        router.infer("new", ids([2, 3]))
        pipeline.workers[1] = WorkerServer(pipeline.documents[1], toy, QUICK)
        pipeline.workers[1].start()
        report = pipeline.wait_ready(sessions=2)
        assert [stage.loads for stage in report.stages] == [1, 1, 1]
        assert models[0].resets == models[2].resets == 2, "a session began with old caches"
        for n in range(3):
            assert router.tokens_of(n) == toy_tokens([n, 1], 40, 3)
        assert router.answer_of("new")["last"].tolist() == [toy_sums([2, 3], 3)[-1]]


def test_who_was_in_a_ring_that_does_not_come_back_hears_why():
    timing = Timing(beat=0.3, report_gap=0.05, settle=0.05, waiting=0.3)
    with ring(load=slow, timing=timing) as pipeline, ready_in_ring(pipeline) as router:
        router.generate(1, [1], max_tokens=60, ignore_eos=True)
        router.wait(lambda: router.tokens[1])
        pipeline.workers[1].stop()
        failure = router.failure_of(1)
        assert failure.code == "UNAVAILABLE"
        assert failure.message.startswith("llama-0 is not ready: stage 1 is not there")
        assert router.tokens[1] == toy_tokens([1], 60, 3)[: len(router.tokens[1])]


def test_a_worker_of_another_plan_is_not_let_in_and_the_report_says_so():
    documents = stage_documents("/toy", [1, 1])
    stranger = documents[1].model_copy(update={"plan_hash": "other"})
    with LocalPipeline([documents[0], stranger], toy, QUICK) as pipeline:
        pipeline.start()
        pipeline.wait_until(
            lambda r: r.message.startswith("stage 1 is not there (stage 1 has plan other of"),
            "the refusal",
        )


def test_a_model_that_cannot_be_loaded_is_told_by_its_stage():
    def load(document, progress):
        if document.stage == 1:
            raise ValueError("layer 3 has no tensor q_proj")
        return toy(document, progress)

    with ring(load=load) as pipeline:
        report = pipeline.wait_until(lambda r: "failed" in r.message, "the failure")
        sentence = "stage 1 cannot load its layers: layer 3 has no tensor q_proj"
        assert f"stage 1 failed: {sentence}" in report.message
        assert pipeline.workers[1].wait(5.0) == sentence
        assert report.stages[1].state == pb.FAILED


def test_a_leader_that_stops_finishes_what_it_has_accepted():
    documents = stage_documents("/toy", [1, 1, 1], max_sequences=2)
    with LocalPipeline(documents, slow, QUICK) as pipeline:
        pipeline.start()
        _finishes_when_stopped(pipeline)


def _finishes_when_stopped(pipeline):
    with ready_in_ring(pipeline) as router:
        for n in range(5):
            router.generate(n, [n], max_tokens=8, ignore_eos=True)
        router.wait(lambda: router.tokens[0])
        pipeline.stop()
        for n in range(5):
            assert router.tokens_of(n) == toy_tokens([n], 8, 3), n
        assert str(router.ended) == "the leader closed the stream", "it was cut off, not ended"


def test_a_leader_that_has_no_more_time_gives_back_what_another_may_go_on_with():
    documents = stage_documents("/toy", [1, 1, 1])
    timing = Timing(beat=0.3, report_gap=0.05, settle=0.05, drain=0.2)
    with LocalPipeline(documents, slow, timing) as pipeline:
        pipeline.start()
        with ready_in_ring(pipeline) as router:
            router.generate(1, [1, 2], max_tokens=60, ignore_eos=True)
            router.wait(lambda: router.tokens[1])
            pipeline.stop()
            failure = router.failure_of(1)
            assert (failure.code, failure.elsewhere) == ("UNAVAILABLE", True)
    with ring() as pipeline, ready_in_ring(pipeline) as other:
        made = router.tokens[1]
        other.generate(1, [1, 2, *made], output=len(made), max_tokens=60, ignore_eos=True)
        assert made + other.tokens_of(1) == toy_tokens([1, 2], 60, 3)
        assert other.finish[1] == "length"


def test_a_draining_leader_that_loses_its_ring_gives_everything_back_at_once():
    with ring(load=slow) as pipeline, ready_in_ring(pipeline) as router:
        router.generate(1, [1], max_tokens=60, ignore_eos=True)
        router.wait(lambda: router.tokens[1])
        pipeline.workers[2].stop()
        pipeline.wait_until(lambda r: r.state == pb.WAITING, "the gap")
        began = time.monotonic()
        pipeline.workers[0].stop()
        assert router.failure_of(1).elsewhere
        assert time.monotonic() - began < QUICK.drain / 2, "it waited for a ring that never comes"


def test_a_port_that_is_taken_is_told():
    with ring(1) as pipeline:
        second = WorkerServer(pipeline.documents[0], toy, QUICK)
        with pytest.raises(WorkerError, match=r"stage 0 cannot listen on .*another process"):
            second.start()


def test_what_hangs_the_ring_again_and_again_ends_and_the_hop_deadline_names_the_stage():
    def load(document, progress):
        model = toy(document, progress)
        forward = model.forward

        def hanging(microbatch):
            if document.stage == 1 and 50 in microbatch.tensors["hidden_states"]:
                time.sleep(0.7)
            return forward(microbatch)

        model.forward = hanging
        return model

    timing = Timing(beat=0.2, report_gap=0.05, hop_floor=0.4, hop_factor=1.0, settle=0.05)
    with ring(load=load, timing=timing) as pipeline, ready_in_ring(pipeline) as router:
        router.infer("bad", ids([25]))
        router.generate("good", [4], max_tokens=5, ignore_eos=True)
        failure = router.failure_of("bad")
        assert failure.code == "INTERNAL"
        assert failure.message.startswith("stage 1 of llama-0 hangs: a microbatch did not pass it")
        assert failure.message.endswith(
            "the request ends, because 3 sessions in a row were lost with it in the ring, the last "
            "with it alone"
        )
        assert router.tokens_of("good") == toy_tokens([4], 5, 3)
        assert "good" not in router.failures


def test_of_a_microbatch_that_a_stage_cannot_compute_only_the_cause_ends():
    def load(document, progress):
        return toy(document, progress, delay=0.005, poison=6 if document.stage == 1 else -1)

    with ring(load=load) as pipeline, ready_in_ring(pipeline) as router:
        for n in range(8, 14):
            router.generate(n, [n], max_tokens=20, ignore_eos=True)
        router.generate("bad", [3], max_tokens=5)
        assert "6 is poison" in router.failure_of("bad").message
        for n in range(8, 14):
            assert router.tokens_of(n) == toy_tokens([n], 20, 3)
