"""What status has beside its conditions, when it is written, and what is told as Events."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_api.status import MAX_STAGE_ENTRIES, UNSEEN, PipelineDeploymentStatus
from stageline_operator.entries import bounded, shown_bytes, shown_time, stage_entries
from stageline_operator.healing import Healing, Replaced
from stageline_operator.notices import notices
from stageline_operator.observed import PipelineKey, PodKey
from stageline_operator.planning import Planning
from stageline_operator.status import history, status
from stageline_operator.times import rfc3339
from support.objects import (
    NOW,
    STAGES,
    at,
    crashing,
    keys,
    pod,
    pods_of,
    record,
    report,
    resource,
    router,
    scene,
    stage_report,
    waiting,
)

A0, A1 = keys("aaa", 0, 1)
ONE = PodKey(*A0, 1)
PLANNED = Planning(record("aaa"))
REFUSED = Planning(refused="PlanRefused", message="it does not fit")


class Life:
    """One resource over time: what is written to its status stays there."""

    def __init__(self) -> None:
        self.status = {}
        self.writes = 0
        self.told = []
        self.again, self.waits = None, None

    def see(self, situation, seconds=0.0, planning=PLANNED, healing=None, generation=1, **spec):
        found = resource(self.status, generation, replicas=situation.wanted, **spec)
        seen = replace(situation.observed, resource=found)
        situation = replace(situation, observed=seen)
        healing = healing or Healing(history=history(situation))
        now = NOW + timedelta(seconds=seconds)
        update = status(situation, planning, healing, "", now)
        self.again, self.waits = update.again, update.waits
        if update.status is not None:
            self.writes += 1
            self.told.extend(notices(self.status, update.status))
            self.status = update.status
        return update.status

    def condition(self, kind):
        return next(each for each in self.status["conditions"] if each["type"] == kind)

    def stage(self, number=0):
        return next(each for each in self.status["stages"] if each["stage"] == number)


def loading(loaded=0, total=1000, **more):
    """One pipeline whose stage 1 loads."""
    told = (
        stage_report(0, state="Loaded"),
        stage_report(1, state="Loading", loaded_bytes=loaded, total_bytes=total, loads=0),
        stage_report(2, state="Loaded"),
    )
    pods = pods_of(A0) | {ONE: pod(ONE, ready=False)}
    return scene(A0, pods=pods, reports={A0: report(A0, "Waiting", told)}, **more)


def working(compute=0.0124, hop=0.00031):
    """One pipeline at work, with these times on each stage."""
    told = tuple(
        stage_report(stage, compute_seconds=compute, hop_seconds=hop) for stage in range(STAGES)
    )
    return scene(A0, reports={A0: report(A0, stages=told)})


def test_the_counts_and_the_plan():
    life = Life()
    life.see(scene(A0, A1, reports={A0: report(A0)}))
    told = life.status
    assert (told["replicas"], told["readyReplicas"], told["updatedReplicas"]) == (2, 1, 2)
    assert (told["pipelines"], told["stageCount"], told["observedGeneration"]) == ("1/2", 3, 1)
    assert told["plan"] == {
        "revision": "aaa", "partition": [2, 2, 2], "hash": record("aaa").plan.plan_hash,
        "memoryChecked": True,
    }  # fmt: skip
    selector = dict(part.split("=") for part in told["selector"].split(","))
    assert selector == {
        "stageline.dev/deployment": "llama", "app.kubernetes.io/component": "stage",
        "stageline.dev/stage": "0",
    }  # fmt: skip


def test_what_is_zero_is_said_of_the_counts_that_people_look_for():
    life = Life()
    life.see(scene(found=resource(), front={}), planning=Planning())
    assert life.status["readyReplicas"] == life.status["updatedReplicas"] == 0
    assert "plan" not in life.status
    assert life.status["stageCount"] == STAGES, "the spec says it"


def test_the_plan_of_what_serves_stands_while_there_is_none_of_the_spec():
    life = Life()
    life.see(scene(A0), planning=REFUSED)
    assert life.status["plan"]["revision"] == "aaa"


def test_a_stage_that_serves():
    life = Life()
    life.see(scene(A0))
    assert life.stage(1) == {
        "pipeline": "llama-aaa-0", "stage": 1, "state": "Serving", "layers": "2-3",
        "bytesLoaded": 1000, "bytesTotal": 1000, "pod": "llama-aaa-0-1", "node": "node-1",
        "transport": "grpc", "computeMilliseconds": "12", "hopMilliseconds": "0.31", "loads": 1,
    }  # fmt: skip


def test_a_stage_without_a_pod_has_its_plan_and_its_history():
    life = Life()
    healing = Healing(history={PodKey(*A0, 0): Replaced(2, NOW)})
    life.see(scene(A0, pods={}, reports={}), healing=healing)
    assert life.stage(0) == {
        "pipeline": "llama-aaa-0", "stage": 0, "state": "Pending", "layers": "0-1",
        "replacements": 2, "lastReplaced": at(),
    }  # fmt: skip


def test_a_stage_in_trouble_says_why_and_quotes_no_secret():
    life = Life()
    words = "cannot download https://me:hunter2@hub.io/x"
    found = pod(ONE, ready=False, container=crashing(words), restarts=2)
    life.see(scene(A0, pods=pods_of(A0) | {ONE: found}, reports={}))
    stage = life.stage(1)
    assert (stage["state"], stage["restarts"]) == ("Failed", 2)
    assert stage["message"] == (
        "CrashLoopBackOff: exit code 1: cannot download https://***@hub.io/x"
    )
    assert "hunter2" not in str(life.status)
    assert "hunter2" not in str(life.told)


def test_what_a_dead_worker_last_said_is_not_told():
    life = Life()
    life.see(scene(A0, pods=pods_of(A0) | {ONE: pod(ONE, ready=False, container=crashing())}))
    assert "bytesLoaded" not in life.stage(1), "its memory is gone, whatever the leader still says"


def test_a_long_message_is_cut():
    life = Life()
    found = pod(ONE, ready=False, container=waiting("ErrImagePull", "x" * 5000))
    life.see(scene(A0, pods=pods_of(A0) | {ONE: found}, reports={}))
    lengths = [len(each["message"]) for each in life.status["conditions"]]
    assert max(*lengths, len(life.stage(1)["message"])) == 1024


def test_history_survives_in_status():
    life = Life()
    past = {ONE: Replaced(3, NOW)}
    life.see(scene(A0), healing=Healing(history=past))
    written = scene(A0, found=resource(life.status))
    assert history(written) == past
    assert history(scene(A0, found=resource({"stages": "garbage"}))) == {}


def test_more_stages_than_fit_keep_those_in_trouble_and_those_with_a_history():
    pipelines = keys("aaa", *range(100))
    ill, replaced = PodKey(*pipelines[-1], 2), PodKey(*pipelines[-2], 1)
    found = scene(
        *pipelines, pods=pods_of(*pipelines) | {ill: pod(ill, ready=False, container=crashing())}
    )
    entries = stage_entries(found.pipelines, {}, {replaced: Replaced(1, NOW)})
    told = bounded(entries)
    assert len(told) == MAX_STAGE_ENTRIES
    assert {entries[ill], entries[replaced]} <= set(told)
    assert list(told) == sorted(told, key=list(entries.values()).index), "by pipeline and stage"


# --- when it is written -----------------------------------------------------------------------


def test_at_rest_nothing_is_written_and_nothing_is_waited_for():
    life = Life()
    life.see(scene(A0))
    for seconds in (1, 10, 3600, 86400):
        assert life.see(scene(A0), seconds) is None
    assert (life.writes, life.again) == (1, None)


def test_not_even_when_it_is_at_rest_because_it_cannot_go_on():
    life, broken = Life(), loading()
    life.see(broken)
    life.see(broken, 3600)
    writes = life.writes
    for seconds in (4000, 90000):
        life.see(broken, seconds)
    assert life.writes == writes
    assert life.again is None


def test_under_constant_load_nothing_is_written():
    life, jitter = Life(), random.Random(1)
    for second in range(600):
        noise = jitter.uniform(0.9, 1.1)
        life.see(working(0.0124 * noise, 0.00031 * noise), second)
    assert life.writes == 1


def test_under_any_load_numbers_alone_are_written_every_five_seconds_at_most():
    life, jitter = Life(), random.Random(1)
    life.see(working())
    for second in range(600):
        life.see(working(0.0124 * jitter.uniform(0.1, 10)), second)
    assert 20 < life.writes <= 1 + 600 / 5


def test_numbers_that_wait_are_written_in_the_end():
    life = Life()
    life.see(working(), 0)
    assert life.see(working(0.1), 1), "the first ones need not wait"
    assert life.see(working(0.2), 2) is None
    assert life.again == 4
    life.see(working(0.2), 2 + life.again)
    assert life.stage()["computeMilliseconds"] == "200"


def test_what_is_more_than_a_number_does_not_wait_and_takes_the_numbers_along():
    life = Life()
    life.see(working(), 0)
    life.see(working(0.1), 1)
    found = working(0.2)
    gone = replace(found.observed, reports={})
    assert life.see(replace(found, observed=gone), 2)
    assert life.condition("Ready")["reason"] == "PipelineSilent"


def test_loading_is_told_in_steps():
    life = Life()
    for second in range(1001):
        life.see(loading(loaded=second), second)
    assert 15 <= life.writes <= 25, "a step is 5 % of the bytes"


def test_fast_loading_of_many_stages_is_told_every_five_seconds_at_most():
    life = Life()
    for tenth in range(600):
        life.see(loading(loaded=10 * tenth, total=6000), tenth / 10)
    assert life.writes <= 2 + 60 / 5


def test_how_far_many_stages_are_is_told_every_five_seconds_at_most():
    life, found = Life(), pods_of(A0)
    life.see(scene(A0, pods={}, reports={}), 0)
    for second, key in enumerate(found):
        found[key] = pod(key, ready=False, phase="Pending", container=waiting("ContainerCreating"))
        life.see(scene(A0, pods=dict(list(found.items())[: second + 1]), reports={}), second)
    assert [stage["state"] for stage in life.status["stages"]] == ["Pending"] * STAGES
    assert life.writes == 3, "the first sight, the first detail, and that all are scheduled"


def test_a_stage_that_fails_is_told_at_once():
    life = Life()
    life.see(loading(loaded=1), 0)
    life.see(loading(loaded=100), 1)
    found = loading(loaded=150)
    assert life.see(found, 2) is None
    crashed = pods_of(A0) | {ONE: pod(ONE, ready=False, container=crashing("bang"))}
    assert life.see(scene(A0, pods=crashed, reports={}), 2)
    assert life.stage(1)["state"] == "Failed"


def test_steps_on_the_way_to_ready_may_wait_for_each_other_and_what_one_acts_on_may_not():
    life = Life()
    steps = [
        (scene(found=resource(), front={}), Planning(), None, "it was seen"),
        (scene(A0, pods={}, reports={}, front=router(0)), PLANNED, 2.0, "it is planned"),
        (scene(A0, reports={}, front=router(0)), PLANNED, 2.0, "its stages have loaded"),
        (scene(A0, front=router(0)), PLANNED, 2.0, "its ring turns"),
        (scene(A0), PLANNED, None, "it is ready"),
    ]
    for seconds, (found, planning, waits, what) in enumerate(steps):
        assert life.see(found, 10 * seconds, planning), what
        assert life.waits == waits, what
    gone = pods_of(A0) | {ONE: pod(ONE, ready=False, container=crashing("bang"))}
    life.see(scene(A0, pods=gone, reports={}), 100)
    assert life.waits is None, "it is broken"


def test_a_resource_that_the_api_server_says_is_pending_was_not_seen_and_need_not_be_at_once():
    life = Life()
    life.status = UNSEEN
    assert life.see(scene(found=resource(), front={}), 0, Planning())
    assert life.waits == 0.0
    assert life.condition("Ready")["lastTransitionTime"] == rfc3339(NOW)


def test_a_new_resource_that_is_ready_at_first_sight_is_told_at_once():
    life = Life()
    life.status = UNSEEN
    assert life.see(scene(A0))
    assert life.waits is None
    assert [notice.reason for notice in life.told] == ["Serving", "Planned"]


def test_conditions_of_others_are_left_to_them():
    life = Life()
    life.see(scene(A0))
    life.status["conditions"].append(
        {"type": "Backup", "status": "True", "reason": "Done", "lastTransitionTime": at()}
    )
    assert life.see(scene(A0), 60) is None


def test_a_status_that_cannot_be_read_is_written_anew():
    life = Life()
    life.status = {"conditions": "none", "stages": 3}
    assert life.see(scene(A0))["readyReplicas"] == 1


def test_a_status_can_be_read_back():
    life = Life()
    life.see(loading(loaded=300))
    parsed = PipelineDeploymentStatus.model_validate(life.status)
    assert parsed.stages[1].bytes_loaded == 300


pods_found = st.sampled_from(
    [
        None,
        pod(),
        pod(ready=False),
        pod(ready=False, container=crashing("no"), restarts=7),
        pod(ready=False, container=waiting("ErrImagePull", "no")),
        pod(ready=False, phase="Failed", reason="Evicted"),
        pod(ready=False, node="", phase="Pending"),
        pod(deleted=-500),
    ]
)
workers = st.sampled_from(["Starting", "Loading", "Loaded", "Serving", "Draining", "Failed"])
leaders = st.sampled_from(["Waiting", "Connecting", "Ready", "Draining"])


@st.composite
def scenes(draw):
    """Any mixture of pipelines, pods, reports and routers."""
    known = [PipelineKey(revision, index) for revision in ("aaa", "bbb") for index in (0, 1)]
    kept = draw(st.lists(st.sampled_from(known), unique=True))
    pods = {}
    for key in known:
        for stage in range(STAGES):
            if (found := draw(pods_found)) is not None:
                place = PodKey(*key, stage)
                pods[place] = {**found, "metadata": {**found["metadata"], **pod(place)["metadata"]}}
    told = draw(st.lists(st.sampled_from(known), unique=True))
    reports = {
        key: report(
            key, draw(leaders), tuple(stage_report(n, state=draw(workers)) for n in range(STAGES))
        )
        for key in told
    }
    front = draw(st.sampled_from([{}, router(), router(0), router(1, 2)]))
    found = resource(replicas=draw(st.integers(0, 3)))
    return scene(*kept, pods=pods, reports=reports, front=front, found=found)


@given(
    scenes(), st.sampled_from([PLANNED, Planning(), Planning(refused="PlanRefused", message="x")])
)
@settings(max_examples=60)
def test_whatever_is_seen_status_is_valid_and_written_once(found, planning):
    life = Life()
    assert life.see(found, planning=planning)
    PipelineDeploymentStatus.model_validate(life.status)
    assert life.see(found, planning=planning) is None
    ready = life.condition("Ready")
    assert (ready["status"] == "True") <= (
        life.status["readyReplicas"] >= found.wanted > 0 and found.router.available > 0
    )


@given(st.floats(1e-7, 1e4), st.floats(0.8, 1.2))
def test_a_time_has_two_digits_and_stays_while_it_is_about_the_same(seconds, factor):
    shown = shown_time(seconds, "")
    assert float(shown) == pytest.approx(seconds * 1000, rel=0.05)
    assert len(shown.replace(".", "").strip("0")) <= 2
    assert shown_time(float(shown) / 1000 * factor, shown) == shown
    assert shown_time(float(shown) / 1000 * 1.3, shown) != shown


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_time_is_not_shown(seconds):
    assert shown_time(seconds, "12") == ""


@given(st.integers(0, 10**12), st.integers(1, 10**12), st.integers(0, 10**12))
def test_loaded_bytes_are_never_behind_by_more_than_a_step(loaded, total, shown):
    loaded, shown = min(loaded, total), min(shown, total)
    life = Life()
    life.see(loading(loaded=shown, total=total))
    before = PipelineDeploymentStatus.model_validate(life.status).stages[1]
    now = shown_bytes(stage_report(loaded_bytes=loaded, total_bytes=total), before)
    assert now <= loaded
    assert loaded - now < total * 0.05 or now == loaded


# --- progress ---------------------------------------------------------------------------------

HALF_AN_HOUR = 1800


def stalled(life):
    condition = life.condition("Stalled")
    return condition["status"], condition["reason"]


def test_without_progress_it_stalls_at_the_deadline_and_says_where():
    life = Life()
    life.see(loading())
    assert life.again == HALF_AN_HOUR
    life.see(loading(), HALF_AN_HOUR - 1)
    assert (stalled(life)[0], life.again) == ("False", 1)
    life.see(loading(), HALF_AN_HOUR)
    assert stalled(life) == ("True", "ProgressDeadlineExceeded")
    words = life.condition("Stalled")["message"]
    assert words.startswith("no progress for 30m (spec.rollout.progressDeadline): pipeline 0 stage")
    assert life.condition("Reconciling")["status"] == "False"
    assert life.condition("Ready")["reason"] == "StageLoading"


def test_progress_puts_the_deadline_off_and_ends_a_stall():
    life = Life()
    life.see(loading(loaded=100))
    life.see(loading(loaded=200), HALF_AN_HOUR - 1)
    life.see(loading(loaded=200), HALF_AN_HOUR)
    assert stalled(life)[0] == "False", "it loaded a tenth just before"
    life.see(loading(loaded=200), 2 * HALF_AN_HOUR)
    assert stalled(life)[0] == "True"
    life.see(loading(loaded=300), 2 * HALF_AN_HOUR + 60)
    assert stalled(life)[0] == "False"
    life.see(scene(A0), 2 * HALF_AN_HOUR + 120)
    assert life.condition("Ready")["status"] == "True"


def test_a_failure_after_a_long_rest_has_the_whole_deadline():
    life = Life()
    life.see(scene(A0))
    life.see(loading(loaded=1), 86400)
    assert stalled(life)[0] == "False"
    assert life.again == HALF_AN_HOUR


def test_another_spec_begins_anew():
    life = Life()
    life.see(loading())
    life.see(loading(), HALF_AN_HOUR)
    life.see(loading(), HALF_AN_HOUR + 1, generation=2)
    assert stalled(life)[0] == "False"


def test_crashing_again_and_again_is_no_progress():
    life = Life()

    def crashes(restarts):
        found = pod(ONE, ready=False, container=crashing(), restarts=restarts)
        return scene(A0, pods=pods_of(A0) | {ONE: found}, reports={})

    def starts(restarts):
        found = pod(ONE, ready=False, restarts=restarts)
        return scene(A0, pods=pods_of(A0) | {ONE: found}, reports={})

    for restarts in range(2, 10):
        life.see(crashes(restarts), 300 * restarts)
        life.see(starts(restarts), 300 * restarts + 60)
    assert stalled(life)[0] == "True"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (scene(A0, pods={}, reports={}), scene(A0, reports={})),
        (scene(A0, reports={}), scene(A0, A1, reports={})),
        (scene(A0, reports={}, front=router(0)), scene(A0, reports={})),
        (scene(A0, A1, reports={}), scene(A0, A1, reports={A0: report(A0)})),
    ],
    ids=["pods came", "a pipeline more", "the router answers", "a pipeline serves"],
)
def test_what_counts_as_progress(before, after):
    life = Life()
    life.see(before)
    life.see(after, 600)
    assert life.status["progressedAt"] == at(600)


# --- Events -----------------------------------------------------------------------------------


def test_a_start_is_told_by_its_plan_and_its_end():
    life = Life()
    life.see(scene(found=resource(), front={}), planning=Planning())
    life.see(scene(A0, pods={}, reports={}, front=router(0)), 1)
    life.see(loading(loaded=0), 2)
    life.see(loading(loaded=500), 3)
    life.see(scene(A0, reports={}), 4)
    life.see(scene(A0), 5)
    life.see(working(0.5), 6)
    assert [(notice.type, notice.reason) for notice in life.told] == [
        ("Normal", "Planned"), ("Normal", "Serving"),
    ]  # fmt: skip


def test_a_rollout_is_told_by_its_reasons():
    life, old, new = Life(), PipelineKey("bbb", 0), A0
    life.see(scene(old, records=(record("bbb"),)), planning=Planning(record("bbb")))
    for second, kept in enumerate(((old, new), (new,)), 1):
        reports = {key: report(key) for key in kept if key == old or second == 2}
        life.see(scene(*kept, reports=reports, found=resource(replicas=1)), second)
    assert [notice.reason for notice in life.told] == ["RollingOut", "Serving"]


def test_a_failure_is_one_warning_and_its_end_is_told():
    life = Life()
    life.see(scene(A0))
    life.told.clear()
    words = ("back-off 10s", "back-off 20s", "back-off 40s")
    for second, message in enumerate(words):
        found = pod(ONE, ready=False, container=waiting("ErrImagePull", message))
        life.see(scene(A0, pods=pods_of(A0) | {ONE: found}, reports={}), second)
    warnings = [notice for notice in life.told if notice.type == "Warning"]
    assert [notice.reason for notice in warnings] == ["StageImagePull"]
    assert "pipeline 0 stage 1 (pod llama-aaa-0-1)" in warnings[0].note
    life.told.clear()
    life.see(scene(A0), 60)
    assert [(notice.type, notice.reason) for notice in life.told] == [("Normal", "Serving")]


def test_at_first_sight_only_what_is_wrong_is_told():
    life = Life()
    life.see(scene(A0))
    assert life.told == []
    refused = Life()
    refused.see(scene(A0), planning=REFUSED)
    assert {(notice.type, notice.reason) for notice in refused.told} == {
        ("Warning", "RolloutBlocked"), ("Warning", "PlanRefused"),
    }  # fmt: skip


def test_a_stall_is_a_warning():
    life = Life()
    life.see(loading())
    life.see(loading(), HALF_AN_HOUR)
    last = life.told[-1]
    assert (last.type, last.reason) == ("Warning", "ProgressDeadlineExceeded")


def test_the_pipeline_of_another_revision_is_not_updated():
    life = Life()
    life.see(scene(A0, PipelineKey("bbb", 0)), planning=Planning(record("bbb", 2)))
    assert (life.status["replicas"], life.status["updatedReplicas"]) == (2, 1)
