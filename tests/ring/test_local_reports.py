"""What the leader of a ring in one process reports, and to whom."""

import time

import grpc
import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_worker.channel import open_channel
from support.pipeline import QUICK, LocalPipeline, stage_documents
from support.toy import toy
from support.toyring import ready_in_ring, ring


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
