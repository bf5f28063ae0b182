"""Real processes, really killed: survivors keep their weights, and no stream loses a token."""

import functools
import signal
import time

import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline_worker.timing import Timing
from support.pipeline import QUICK, process_pipeline
from support.toy import toy, toy_tokens

slow = functools.partial(toy, delay=0.01)
# Stopped processes are found by their hop's deadline; the control stream's silence comes later.
IMPATIENT = Timing(
    beat=0.2, report_gap=0.05, settle=0.05, hop_floor=1.0, hop_factor=2.0, silence=3.0, connect=2.0
)


def generating(router, request="long"):
    router.generate(request, [1], max_tokens=60, ignore_eos=True)
    router.wait(lambda: len(router.tokens[request]) > 2)


def answers(router, request):
    router.generate(request, [4, 2], max_tokens=6, ignore_eos=True)
    assert router.tokens_of(request) == toy_tokens([4, 2], 6, 3)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_killed_stage_is_named_and_the_others_keep_their_weights(stage):
    with process_pipeline("/toy", [1, 1, 1], load=slow) as pipeline:
        before = pipeline.wait_ready()
        with pipeline.router() as router:
            generating(router)
            pipeline.kill(stage)
            gap = pipeline.wait_until(
                lambda r: r.message.startswith(f"stage {stage} is not there"), "the gap"
            )
            reason = f"stage {stage} of llama-0 is gone: its control stream broke"
            assert gap.message.endswith(f"the last one ended: {reason}")
            pipeline.restart(stage)
            after = pipeline.wait_ready(sessions=2)
            assert router.tokens_of("long") == toy_tokens([1], 60, 3)
            answers(router, "next")
    assert [s.loads for s in after.stages] == [1, 1, 1]
    kept = [
        old.incarnation == new.incarnation
        for old, new in zip(before.stages, after.stages, strict=True)
    ]
    assert kept == [n != stage for n in range(3)]
    assert after.session > before.session


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stopped_stage_is_a_failure_and_comes_back_with_its_weights(stage):
    with process_pipeline("/toy", [1, 1, 1], load=slow, timing=IMPATIENT) as pipeline:
        before = pipeline.wait_ready()
        with pipeline.router() as router:
            generating(router)
            pipeline.kill(stage, signal.SIGSTOP)
            gap = pipeline.wait_until(
                lambda r: r.state == pb.WAITING and f"stage {stage} " in r.message, "the gap"
            )
            assert f"the last one ended: stage {stage} of llama-0 hangs" in gap.message
            pipeline.kill(stage, signal.SIGCONT)
            after = pipeline.wait_ready(sessions=2)
            assert router.tokens_of("long") == toy_tokens([1], 60, 3)
            answers(router, "next")
    assert [s.loads for s in after.stages] == [1, 1, 1]
    assert [s.incarnation for s in after.stages] == [s.incarnation for s in before.stages]


def test_a_killed_leader_is_joined_again_by_workers_that_kept_their_weights():
    with process_pipeline("/toy", [1, 1, 1], load=slow) as pipeline:
        before = pipeline.wait_ready()
        with pipeline.router() as router:
            generating(router)
            pipeline.kill(0)
            with pytest.raises(AssertionError, match="stream ended"):
                router.wait(lambda: False)
        pipeline.restart(0)
        after = pipeline.wait_ready()
        with pipeline.router() as router:
            answers(router, "next")
    assert [
        s.incarnation == o.incarnation for s, o in zip(after.stages, before.stages, strict=True)
    ] == [False, True, True]
    assert [s.loads for s in after.stages] == [1, 1, 1]
    assert after.session >> 32 != before.session >> 32


def test_a_stopped_leader_answers_again_when_it_goes_on():
    with process_pipeline("/toy", [1, 1, 1], load=slow, timing=IMPATIENT) as pipeline:
        pipeline.wait_ready()
        with pipeline.router() as router:
            generating(router)
            pipeline.kill(0, signal.SIGSTOP)
            time.sleep(IMPATIENT.silence)  # longer than any deadline it keeps
            pipeline.kill(0, signal.SIGCONT)
            assert router.tokens_of("long") == toy_tokens([1], 60, 3)
            pipeline.wait_ready()
            answers(router, "next")
            report = pipeline.report()
    assert [s.loads for s in report.stages] == [1, 1, 1]


def test_an_idle_stopped_stage_is_found_by_its_silence():
    with process_pipeline("/toy", [1, 1], load=toy, timing=IMPATIENT) as pipeline:
        pipeline.wait_ready()
        pipeline.kill(1, signal.SIGSTOP)
        report = pipeline.wait_until(lambda r: r.state == pb.WAITING, "the end of the session")
        assert "stage 1 of llama-0 is gone: it has said nothing for" in report.message


def test_killed_again_and_again_it_always_comes_back():
    with process_pipeline("/toy", [1, 1, 1], load=toy) as pipeline, pipeline.router() as router:
        for round_number, stage in enumerate([1, 2, 1, 2], start=1):
            pipeline.wait_ready(sessions=round_number)
            answers(router, round_number)
            pipeline.kill(stage)
            pipeline.restart(stage)
        report = pipeline.wait_ready(sessions=5)
        answers(router, "end")
        assert report.stages[0].loads == 1


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_with_exit_code_0(stage, number):
    with process_pipeline("/toy", [1, 1, 1], load=slow) as pipeline:
        pipeline.wait_ready()
        with pipeline.router() as router:
            router.generate("last", [1], max_tokens=20, ignore_eos=True)
            router.wait(lambda: router.tokens["last"])
            pipeline.kill(stage, number)
            assert pipeline.join(stage, 10.0) == 0
            if stage > 0:
                gap = pipeline.wait_until(lambda r: len(r.stages) == 2, "the gap")
                assert f"stage {stage} of llama-0 is leaving" in gap.message
                pipeline.restart(stage)
            assert router.tokens_of("last") == toy_tokens([1], 20, 3), "it was not finished"
        assert "Traceback" not in pipeline.logs[stage].read_text()


def test_the_log_has_one_line_for_each_decision_and_none_for_a_microbatch():
    with process_pipeline("/toy", [1, 1], load=toy, timing=QUICK) as pipeline:
        pipeline.wait_ready()
        with pipeline.router() as router:
            router.generate(1, [1], max_tokens=50, ignore_eos=True)
            router.tokens_of(1)
        lines = pipeline.logs[0].read_text().splitlines()
    events = [line.split()[1] for line in lines]
    assert sorted(events) == [
        "attached", "attached", "loaded", "session_opened", "session_ready", "started"
    ]  # fmt: skip
