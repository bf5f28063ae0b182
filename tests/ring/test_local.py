"""A whole ring in one process: what goes in comes out, for every sort of work."""

import time

import grpc
import pytest
import torch

from stageline_wire import Frame, Kind
from stageline_worker.timing import Timing
from support.pipeline import QUICK, LocalPipeline, stage_documents
from support.router import Router
from support.toy import EOS, MAX_LEN, toy, toy_sums, toy_tokens
from support.toyring import greedy, ids, ready_in_ring, ring, slow


@pytest.fixture(params=[1, 2, 3], ids=lambda stages: f"{stages} stages")
def stages(request):
    return request.param


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


def test_a_ring_of_three_stands_in_well_under_a_second():
    began = time.monotonic()
    with ring() as pipeline:
        pipeline.wait_ready()
        assert time.monotonic() - began < 2.0, "usually 0.05 s"


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
