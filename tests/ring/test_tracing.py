"""What stages did of late, on one clock, and how long they waited while there was work."""

import functools
import threading
import time

import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_worker.channel import open_channel
from stageline_worker.leader.tracing import Tracing
from support.pipeline import local_pipeline
from support.toy import toy


def trace_of(pipeline, spans=0):
    with open_channel(pipeline.leader) as channel:
        stub = services.PipelineStub(channel)
        return stub.Trace(pb.TraceRequest(spans=spans), timeout=10.0)


def test_a_trace_tells_of_each_microbatch_at_each_stage_in_order():
    load = functools.partial(toy, delay=0.01)
    with local_pipeline("/toy", [1, 1, 1], load=load, prefill_chunk=4) as pipeline:
        pipeline.wait_ready()
        with pipeline.router() as router:
            router.generate(1, [5] * 6, max_tokens=4, ignore_eos=True)
            router.tokens_of(1)
            trace = trace_of(pipeline)
            newest = trace_of(pipeline, spans=2)
    assert trace.pipeline == "llama-0"
    assert [stage.stage for stage in trace.stages] == [0, 1, 2]
    kinds = [pb.SPAN_INFER, pb.SPAN_PREFILL, pb.SPAN_PREFILL, *[pb.SPAN_DECODE] * 3]
    for stage in trace.stages:
        assert [span.kind for span in stage.spans] == kinds, "canary, prompt, tokens"
        assert [span.tokens for span in stage.spans] == [1, 4, 2, 1, 1, 1]
        assert [span.sequence for span in stage.spans] == [1, 2, 3, 4, 5, 6]
        assert [span.idle for span in stage.spans] == [True, True, *[False] * 4]
        assert len({span.session for span in stage.spans}) == 1
        for span in stage.spans:
            assert span.free <= span.begin <= span.end <= span.sent
            assert span.end - span.begin >= 0.01
    for before, after in zip(trace.stages, trace.stages[1:], strict=False):
        for earlier, later in zip(before.spans, after.spans, strict=True):
            # All of this process has one clock, which the leader has to find by its questions.
            assert later.begin >= earlier.end - before.error - after.error
    assert [list(s.spans) for s in newest.stages] != [list(s.spans) for s in trace.stages]
    assert [len(stage.spans) for stage in newest.stages] == [2, 2, 2]


@pytest.mark.parametrize("skew", [-1000.0, 0.0, 1000.0])
def test_stages_with_other_clocks_are_put_on_the_leaders(skew):
    tracing = Tracing()

    def stage(question):
        time.sleep(0.002)  # the way there
        now = time.monotonic()
        span = pb.Span(free=now + skew, begin=now + skew, end=now + skew, sent=now + skew)
        spans = [span] * min(question.spans, 1)
        truth.append(now)
        time.sleep(0.001)  # and back
        tracing.answered(3, pb.StageTrace(id=question.id, now=now + skew, spans=spans))

    def ask(question):
        tracing.asked(question.id, [3])
        threads.append(threading.Thread(target=stage, args=(question,)))
        threads[-1].start()

    truth: list[float] = []
    threads: list[threading.Thread] = []
    (trace,) = tracing.gather(ask, 0)
    for thread in threads:
        thread.join()
    assert 0.001 < trace.error < 1.0
    assert abs(trace.spans[0].begin - truth[-1]) <= trace.error


def test_a_stage_that_does_not_answer_is_left_out(monkeypatch):
    monkeypatch.setattr("stageline_worker.leader.tracing._SECONDS", 0.05)
    tracing = Tracing()

    def ask(question):
        tracing.asked(question.id, [0, 1])
        tracing.answered(1, pb.StageTrace(id=question.id, now=time.monotonic()))
        tracing.answered(0, pb.StageTrace(id=question.id - 1))

    assert [trace.stage for trace in tracing.gather(ask, 0)] == [1]


def test_stages_tell_how_long_they_computed_and_how_long_they_waited_for_work_that_was_there():
    def load(document, progress):
        return toy(document, progress, delay=0.02 if document.stage == 1 else 0.0)

    with local_pipeline("/toy", [1, 1], load=load) as pipeline:
        pipeline.wait_ready()
        time.sleep(0.3)  # idle: nobody waits for work that is not there
        with pipeline.router() as router:
            for n in range(4):
                router.generate(n, [n + 1], max_tokens=20, ignore_eos=True)
            for n in range(4):
                router.tokens_of(n)
        fast, slow = pipeline.wait_until(
            lambda r: len({stage.microbatches for stage in r.stages}) == 1, "the last reports"
        ).stages
    assert slow.busy_seconds > 0.02 * 20
    bubble = slow.waiting_seconds / (slow.waiting_seconds + slow.busy_seconds)
    assert bubble < 0.25, "the slower stage waited though the other one had work for it"
    assert fast.waiting_seconds > 0.5 * slow.busy_seconds, "the faster one must wait for it"
