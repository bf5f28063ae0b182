"""What is told as Events."""

from __future__ import annotations

from stageline_operator.observed import PipelineKey
from stageline_operator.planning import Planning
from support.life import A0, ONE, REFUSED, Life, loading, working
from support.objects import pod, pods_of, record, report, resource, router, scene, waiting

HALF_AN_HOUR = 1800


def test_a_start_is_told_step_by_step():
    life = Life()
    life.see(scene(found=resource(), front={}), planning=Planning())
    life.see(scene(A0, pods={}, reports={}, front=router(0)), 1)
    life.see(loading(loaded=0), 2)
    life.see(loading(loaded=500), 3)
    life.see(scene(A0, reports={}), 4)
    life.see(scene(A0), 5)
    life.see(working(0.5), 6)
    assert [(notice.type, notice.reason) for notice in life.told] == [
        ("Normal", "Planned"), ("Normal", "Scheduled"), ("Normal", "Loaded"), ("Normal", "Serving"),
    ]  # fmt: skip


def test_a_rollout_is_told_by_its_reasons():
    life, old, new = Life(), PipelineKey("bbb", 0), A0
    life.see(scene(old, records=(record("bbb"),)), planning=Planning(record("bbb")))
    for second, kept in enumerate(((old, new), (new,)), 1):
        reports = {key: report(key) for key in kept if key == old or second == 2}
        life.see(scene(*kept, reports=reports, found=resource(replicas=1)), second)
    assert [notice.reason for notice in life.told] == ["Serving", "RollingOut", "Serving"]


def test_a_failure_is_one_warning_and_its_end_is_told():
    life = Life()
    life.see(scene(A0))
    life.told.clear()
    words = ("back-off 10s", "back-off 20s", "back-off 40s")
    for second, message in enumerate(words):
        found = pod(ONE, ready=False, container=waiting("ErrImagePull", message))
        life.see(scene(A0, pods=pods_of(A0) | {ONE: found}, reports={}), second)
    (warning,) = life.told
    assert (warning.type, warning.reason) == ("Warning", "StageImagePull")
    assert "pipeline 0 stage 1 (pod llama-aaa-0-1)" in warning.note
    life.told.clear()
    life.see(scene(A0), 60)
    assert [(notice.type, notice.reason) for notice in life.told] == [("Normal", "Serving")]


def test_what_blocks_a_rollout_is_told_rather_than_that_it_is_blocked():
    life = Life()
    life.see(scene(A0), planning=REFUSED)
    (told,) = life.told
    assert (told.type, told.reason) == ("Warning", "PlanRefused")
    assert "Ready True (RolloutBlocked)" in told.note


def test_a_stall_is_a_warning():
    life = Life()
    life.see(loading())
    life.see(loading(), HALF_AN_HOUR)
    last = life.told[-1]
    assert (last.type, last.reason) == ("Warning", "ProgressDeadlineExceeded")
