"""A whole ring in one process: what goes in comes out, for every sort of work and of trouble."""

import functools
import time

import grpc
import pytest
import torch

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_wire import Frame, Kind
from stageline_worker.channel import open_channel
from stageline_worker.server import WorkerError, WorkerServer
from stageline_worker.timing import Timing
from support.pipeline import QUICK, LocalPipeline, local_pipeline, stage_documents
from support.router import Router
from support.toy import EOS, MAX_LEN, toy, toy_sums, toy_tokens

slow = functools.partial(toy, delay=0.02)


@pytest.fixture(params=[1, 2, 3], ids=lambda stages: f"{stages} stages")
def stages(request):
    return request.param


def ring(stages=3, load=toy, **fields):
    return local_pipeline("/toy", [1] * stages, load=load, **fields)


def ready_in_ring(pipeline):
    pipeline.wait_ready()
    return pipeline.router()


def ids(*rows):
    return {"input_ids": torch.tensor(rows)}


def greedy(prompt, count, stages):
    """The toy's tokens, up to its end-of-sequence token."""
    tokens = toy_tokens(prompt, count, stages)
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


def test_inference_answers_what_was_asked_for(stages):
    with ring(stages) as pipeline, ready_in_ring(pipeline) as router:
        router.infer("a", ids([1, 2, 3], [4, 5, 6]))
        router.infer(7, ids([9]), outputs=["last"])
        answer = router.answer_of("a")
        assert sorted(answer) == ["last", "sums"]
        expected = [toy_sums([1, 2, 3], stages), toy_sums([4, 5, 6], stages)]
        assert answer["sums"].tolist() == expected
        assert answer["last"].tolist() == [row[-1] for row in expected]
        assert {k: v.tolist() for k, v in router.answer_of(7).items()} == {
            "last": [toy_sums([9], stages)[-1]]
        }


def test_many_generations_at_once_are_each_as_if_alone(stages):
    prompts = {n: [n, *range(n % 7), 3] for n in range(40)}
    fields = {"max_sequences": 5, "prefill_chunk": 3}
    with ring(stages, **fields) as pipeline, ready_in_ring(pipeline) as router:
        for n, prompt in prompts.items():
            router.generate(n, prompt, max_tokens=12)
            if n % 3 == 0:
                router.infer(f"i{n}", ids(prompt))
        for n, prompt in prompts.items():
            assert router.tokens_of(n) == greedy(prompt, 12, stages), n
            assert router.finish[n] == ("stop" if EOS in router.tokens[n] else "length")
            if n % 3 == 0:
                assert router.answer_of(f"i{n}")["sums"][0].tolist() == toy_sums(prompt, stages)


def test_a_generation_ends_at_the_models_length_and_at_its_stop_tokens():
    with ring() as pipeline, ready_in_ring(pipeline) as router:
        expected = toy_tokens([1, 2], 60, 3)
        router.generate("long", [1, 2], max_tokens=1000, ignore_eos=True)
        assert router.tokens_of("long") == toy_tokens([1, 2], MAX_LEN - 2, 3)
        assert router.finish["long"] == "length"
        router.generate("stop", [1, 2], max_tokens=60, stop_token_ids=[expected[4]])
        assert router.tokens_of("stop") == expected[:5]
        assert router.finish["stop"] == "stop"


def test_tokens_of_one_step_come_in_one_frame_and_in_order():
    with ring() as pipeline, ready_in_ring(pipeline) as router:
        for n in range(4):
            router.generate(n, [n + 1], max_tokens=10, ignore_eos=True)
        for n in range(4):
            router.tokens_of(n)
        token_frames = [frame for frame in router.frames if frame.kind is Kind.TOKENS]
        assert len(token_frames) <= 40
        assert all(len(entry) == 3 for frame in token_frames for entry in frame.meta["tokens"])


def test_several_routers_may_use_the_same_ids():
    with ring() as pipeline, ready_in_ring(pipeline) as one, pipeline.router() as two:
        one.generate(1, [1], max_tokens=20, ignore_eos=True)
        two.generate(1, [2], max_tokens=20, ignore_eos=True)
        assert one.tokens_of(1) == toy_tokens([1], 20, 3)
        assert two.tokens_of(1) == toy_tokens([2], 20, 3)


def test_work_that_comes_before_the_ring_turns_waits_for_it():
    documents = stage_documents("/toy", [1, 1, 1])
    with LocalPipeline(documents, toy, QUICK) as early, early.router() as router:
        early.workers[0].start()
        early.wait_until(lambda r: r.HasField("info"), "the model's facts")
        router.generate(1, [1, 2], max_tokens=5, ignore_eos=True)
        early.wait_until(lambda r: r.waiting == 1, "the waiting request")
        for worker in early.workers[1:]:
            worker.start()
        assert router.tokens_of(1) == toy_tokens([1, 2], 5, 3)


def test_work_does_not_wait_for_ever_for_a_ring_that_does_not_turn():
    documents = stage_documents("/toy", [1, 1])
    timing = Timing(waiting=0.2)
    with LocalPipeline(documents, toy, timing) as alone, alone.router() as router:
        alone.workers[0].start()
        alone.wait_until(lambda r: r.HasField("info"), "the model's facts")
        router.generate(1, [1, 2])
        failure = router.failure_of(1)
        assert failure.code == "UNAVAILABLE"
        assert failure.message == "llama-0 is not ready: stage 1 is not there"


def test_one_bad_request_is_refused_alone():
    with ring() as pipeline, ready_in_ring(pipeline) as router:
        router.generate("good", [1, 2], max_tokens=30, ignore_eos=True)
        router.generate("bad token", [97])
        router.infer("bad output", ids([1]), outputs=["nonsense"])
        router.infer("bad input", {"pixels": torch.zeros(1)})
        router.generate("good", [3])
        for request in ("bad token", "bad output", "bad input"):
            assert router.failure_of(request).code == "INVALID_ARGUMENT"
        assert "'good' is in use" in router.failure_of("good").message
        router.infer("next", ids([5]))
        assert router.answer_of("next")["last"].tolist() == [toy_sums([5], 3)[-1]]


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


def test_more_than_may_wait_is_refused_as_exhausted():
    fields = {"load": slow, "max_waiting": 3, "max_sequences": 1}
    with ring(**fields) as pipeline, ready_in_ring(pipeline) as router:
        for n in range(12):
            router.generate(n, [n], max_tokens=5, ignore_eos=True)
        router.wait(lambda: len(router.failures) + len(router.finish) == 12)
        assert 5 <= len(router.failures) <= 9
        for failure in router.failures.values():
            assert failure.code == "RESOURCE_EXHAUSTED"
            assert 1 <= failure.retry_after <= 60
            assert f"try again in {failure.retry_after:g} s" in failure.message
        for n in router.finish:
            assert router.tokens[n] == toy_tokens([n], 5, 3)


def test_cancel_frees_the_slot_and_what_is_cancelled_is_not_heard_of_again():
    with ring(load=slow, max_sequences=1) as pipeline, ready_in_ring(pipeline) as router:
        router.generate("long", [1], max_tokens=60, ignore_eos=True)
        router.wait(lambda: router.tokens["long"])
        router.generate("next", [2], max_tokens=2, ignore_eos=True)
        router.cancel("long", "never existed")
        assert router.tokens_of("next") == toy_tokens([2], 2, 3)
        assert len(router.tokens["long"]) < 10
        heard = len(router.tokens["long"])
        router.generate("last", [3], max_tokens=2, ignore_eos=True)
        router.tokens_of("last")
        assert len(router.tokens["long"]) == heard
        assert pipeline.wait_until(lambda r: r.running == r.waiting == 0, "rest").sequences == 0


def test_a_router_that_goes_takes_its_work_with_it():
    with ring(load=slow, max_sequences=2) as pipeline:
        with ready_in_ring(pipeline) as router:
            for n in range(6):
                router.generate(n, [n], max_tokens=60, ignore_eos=True)
            pipeline.wait_until(lambda r: r.sequences == 2 and r.waiting == 4, "full slots")
        pipeline.wait_until(
            lambda r: (r.sequences, r.waiting, r.running) == (0, 0, 0), "free slots", 5.0
        )


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (b"", "truncated"),
        (b"x" * 200, "not a Stageline frame"),
        (Frame(Kind.MICROBATCH, 1, 1), "MICROBATCH frame does not come from a router"),
        (Frame(Kind.INFER), "needs an id"),
        (Frame(Kind.CANCEL, meta={"ids": 3}), "CANCEL frame needs ids"),
        (Frame(Kind.CANCEL, meta={"ids": [[]]}), "CANCEL frame needs ids"),
    ],
)
def test_a_router_that_speaks_badly_loses_its_own_stream_alone(message, sentence):
    with ring() as pipeline, ready_in_ring(pipeline) as good, pipeline.router() as bad:
        good.generate(1, [1], max_tokens=30, ignore_eos=True)
        bad.generate(1, [1], max_tokens=60, ignore_eos=True)
        bad.send(message) if isinstance(message, Frame) else bad.send_bytes(message)
        with pytest.raises(AssertionError, match="stream ended"):
            bad.wait(lambda: False)
        assert bad.ended.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert sentence in bad.ended.details()
        assert good.tokens_of(1) == toy_tokens([1], 30, 3)
        report = pipeline.wait_until(lambda r: r.stages[0].refused_frames == 1, "the count")
        assert report.sessions == 1


def test_the_report_tells_what_each_stage_is_and_does():
    with ring(revision="r9") as pipeline, ready_in_ring(pipeline) as router:
        router.generate(1, [1, 2], max_tokens=9, ignore_eos=True)
        router.tokens_of(1)
        report = pipeline.wait_until(
            lambda r: all(s.microbatches == 10 and s.state == pb.SERVING for s in r.stages),
            "the microbatches of all stages",
        )
    assert (report.model, report.pipeline, report.revision) == ("llama", "llama-0", "r9")
    assert report.message == ""
    assert report.sequence_slots == 16
    assert 0 < report.canary_seconds < 10
    assert report.info.task == pb.GENERATE
    assert [spec.name for spec in report.info.inputs] == ["input_ids", "attention_mask"]
    for n, stage in enumerate(report.stages):
        assert (stage.stage, stage.first_layer, stage.end_layer) == (n, n, n + 1)
        assert (stage.loaded_bytes, stage.total_bytes, stage.loads) == (1024, 1024, 1)
        assert (stage.device, stage.dtype, stage.transport) == ("cpu", "float64", "unix")
        assert stage.session == report.session
        assert stage.last_sequence == 10
        assert 0 < stage.compute_seconds < 1
        assert 0 < stage.hop_seconds < 1
        assert stage.host


def test_watching_is_pushed_on_change_and_beats_without():
    documents = stage_documents("/toy", [1, 1])
    with LocalPipeline(documents, toy, QUICK) as pipeline, open_channel(pipeline.leader) as channel:
        pipeline.workers[0].start()
        reports = services.PipelineStub(channel).Watch(pb.WatchRequest(), wait_for_ready=True)
        first = next(reports)
        began = time.monotonic()
        beats = [next(reports) for _ in range(4)]
        assert time.monotonic() - began < 5 * QUICK.beat + 2
        assert first.state == beats[-1].state == pb.WAITING
        assert beats[-1].message == "stage 1 is not there"
        pipeline.workers[1].start()
        states = [report.state for report in _until_ready(reports)]
        assert states[-1] == pb.READY
        reports.cancel()


@pytest.mark.parametrize("asked", [{"pipeline": "llama-1"}, {"revision": "r2"}])
def test_a_leader_that_is_another_says_who_it_is(asked):
    documents = stage_documents("/toy", [1])
    with LocalPipeline(documents, toy, QUICK) as pipeline, open_channel(pipeline.leader) as channel:
        pipeline.start()
        watch = services.PipelineStub(channel).Watch
        expected = {"pipeline": "llama-0", "revision": "r1"}
        with pytest.raises(grpc.RpcError) as refused:
            next(watch(pb.WatchRequest(**{**expected, **asked}), wait_for_ready=True))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "the leader of llama-0 of revision r1, not of" in refused.value.details()
        assert next(iter(asked.values())) in refused.value.details()
        for request in ({}, expected, {"revision": "r1"}):
            reports = watch(pb.WatchRequest(**request))
            assert next(reports).pipeline == "llama-0"
            reports.cancel()


def _until_ready(reports):
    for report in reports:
        yield report
        if report.state == pb.READY:
            return


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


def test_a_ring_of_three_stands_in_well_under_a_second():
    began = time.monotonic()
    with ring() as pipeline:
        pipeline.wait_ready()
        assert time.monotonic() - began < 2.0, "usually 0.05 s"


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


def test_a_router_may_close_while_it_is_answered():
    with ring() as pipeline:
        pipeline.wait_ready()
        for _ in range(5):
            router = Router(pipeline.leader)
            router.generate(1, [1], max_tokens=30, ignore_eos=True)
            router.close()
        with pipeline.router() as last:
            last.generate(1, [4], max_tokens=3, ignore_eos=True)
            assert last.tokens_of(1) == toy_tokens([4], 3, 3)
