"""A failed pod is replaced: only that one, with a back-off, and within a budget."""

from __future__ import annotations

from datetime import timedelta

import pytest

from stageline_operator.healing import BUDGET, NODE_LOSS, Replaced, back_off, heal
from stageline_operator.observed import PodKey
from stageline_operator.truth import CRASHES
from support.objects import NOW, crashing, keys, pod, pods_of, scene

A0 = keys("aaa", 0)
ONE, OTHER = PodKey("aaa", 0, 1), PodKey("aaa", 0, 2)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def scene_with(key: PodKey, found, kept=A0):
    pods = pods_of(key.pipeline)
    if found is None:
        del pods[key]
    else:
        pods[key] = found
    return scene(*kept, pods=pods)


def evicted(key=ONE, **more):
    return pod(key, ready=False, phase="Failed", reason="Evicted", message="low on memory", **more)


def healed(found, history=None, now=NOW, key=ONE, kept=A0):
    return heal(scene_with(key, found, kept).stages, history or {}, now)


def names(healing):
    return [(each.name, each.force) for each in healing.replace]


def test_nothing_is_done_for_what_is_well():
    healing = heal(scene(*A0).stages, {}, NOW)
    assert healing.replace == healing.exhausted == ()
    assert healing.again is None
    assert healing.history == {}


@pytest.mark.parametrize(
    "found",
    [
        evicted(),
        pod(ONE, ready=False, phase="Succeeded"),
        pod(ONE, ready=False, phase="Unknown"),
        pod(ONE, ready=False, container=crashing(), restarts=CRASHES),
    ],
    ids=["evicted", "ended", "lost", "crash-looping for long"],
)
def test_the_failed_pod_and_no_other_goes_at_once(found):
    healing = healed(found)
    assert names(healing) == [("llama-aaa-0-1", False)]
    assert healing.replace[0].uid == "uid-llama-aaa-0-1"
    assert healing.history == {ONE: Replaced(1, NOW)}


def test_a_container_that_crashed_is_the_kubelets_to_restart():
    found = pod(ONE, ready=False, container=crashing(), restarts=CRASHES - 1)
    assert healed(found).replace == ()


def test_a_pod_that_is_merely_gone_is_not_counted():
    assert healed(None).history == {}


def test_the_waits_double_and_end_at_five_minutes():
    waits = [back_off(times).total_seconds() for times in range(8)]
    assert waits == [0, 10, 20, 40, 80, 300, 300, 300]


@pytest.mark.parametrize(("times", "wait"), [(1, 10), (2, 20), (3, 40), (4, 80), (5, 300)])
def test_the_next_one_comes_when_its_wait_is_over(times, wait):
    history = {ONE: Replaced(times, NOW)}
    early = healed(evicted(), history, NOW + seconds(wait - 1))
    assert early.replace == ()
    assert early.again == 1
    assert early.history == history
    due = healed(evicted(), history, NOW + seconds(wait))
    assert names(due) == [("llama-aaa-0-1", False)]
    assert due.history == {ONE: Replaced(times + 1, NOW + seconds(wait))}


def test_a_clock_that_was_set_back_lengthens_no_wait():
    healing = healed(evicted(), {ONE: Replaced(1, NOW + timedelta(days=1))})
    assert healing.again == 10


def test_the_budget_is_spent_after_five_and_it_goes_on_trying():
    spent = {ONE: Replaced(BUDGET, NOW)}
    waiting = healed(evicted(), spent, NOW + seconds(60))
    assert waiting.exhausted == (ONE,)
    assert waiting.again == 240
    tried = healed(evicted(), spent, NOW + seconds(300))
    assert names(tried) == [("llama-aaa-0-1", False)]
    assert tried.exhausted == (ONE,)


def test_a_spent_budget_is_said_as_long_as_the_stage_is_not_well():
    spent = {ONE: Replaced(BUDGET, NOW)}
    assert healed(None, spent).exhausted == (ONE,), "its next pod is not made yet"
    assert healed(pod(ONE, ready=False), spent).exhausted == (ONE,), "its next pod still loads"
    assert healed(pod(ONE), spent).exhausted == (), "it is well"
    assert healed(evicted(), {ONE: Replaced(BUDGET - 1, NOW)}).exhausted == ()


def test_an_hour_of_health_wipes_the_history_out():
    history = {ONE: Replaced(BUDGET, NOW - timedelta(hours=2))}
    for lived, kept in ((3599, True), (3600, False)):
        started = (NOW - seconds(lived)).isoformat()
        running = pod(ONE, container={"state": {"running": {"startedAt": started}}})
        assert (ONE in healed(running, history).history) is kept, f"it was well for {lived} s"
    died = pod(ONE, ready=False, container=crashing(lived=3600), restarts=CRASHES)
    assert healed(died, history).history == {ONE: Replaced(1, NOW)}, "it begins anew"


def test_an_hour_of_loading_is_no_health():
    history = {ONE: Replaced(2, NOW - timedelta(hours=2))}
    started = (NOW - timedelta(hours=2)).isoformat()
    loading = pod(
        ONE, ready=False, container={"ready": False, "state": {"running": {"startedAt": started}}}
    )
    assert healed(loading, history).history == history


def test_a_pod_on_its_way_out_is_waited_for_then_forced():
    loss = NODE_LOSS.total_seconds()
    going = evicted(deleted=30)
    early = healed(going, now=NOW + seconds(30 + loss - 1))
    assert early.replace == ()
    assert early.again == 1
    late = healed(going, now=NOW + seconds(30 + loss))
    assert names(late) == [("llama-aaa-0-1", True)]
    assert late.history == {}, "its failure was counted when it was deleted"


def test_a_stuck_pod_is_freed_in_a_pipeline_that_leaves_too():
    late = NOW + seconds(300)
    stuck = healed(pod(ONE, deleted=30), now=late, kept=keys("bbb", 0))
    assert names(stuck) == [("llama-aaa-0-1", True)]


def test_a_pipeline_that_leaves_is_not_healed():
    assert healed(evicted(), kept=keys("bbb", 0)).replace == ()
    assert healed(evicted(), {ONE: Replaced(1, NOW)}, kept=keys("bbb", 0)).history == {}


def test_each_stage_has_a_budget_of_its_own():
    pods = pods_of(*A0) | {ONE: evicted(ONE), OTHER: evicted(OTHER)}
    healing = heal(scene(*A0, pods=pods).stages, {ONE: Replaced(3, NOW)}, NOW)
    assert names(healing) == [("llama-aaa-0-2", False)]
    assert healing.again == 40
    assert healing.history == {ONE: Replaced(3, NOW), OTHER: Replaced(1, NOW)}
