"""When status is written: not at rest, not for noise, at once for what matters."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_api.status import UNSEEN, PipelineDeploymentStatus
from stageline_operator.observed import PipelineKey, PodKey
from stageline_operator.planning import Planning
from stageline_operator.status import COMPANY_SECONDS
from stageline_operator.times import rfc3339
from support.life import A0, ONE, PLANNED, REFUSED, Life, loading, working
from support.objects import (
    NOW,
    STAGES,
    at,
    crashing,
    pod,
    pods_of,
    report,
    resource,
    router,
    scene,
    stage_report,
    waiting,
)


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
    life, soon = Life(), COMPANY_SECONDS
    steps = [
        (scene(found=resource(), front={}), Planning(), None, "it was seen"),
        (
            scene(A0, pods={}, reports={}, front=router(0)),
            PLANNED,
            COMPANY_SECONDS,
            "it is planned",
        ),
        (
            scene(A0, reports={}, front=router(0)),
            PLANNED,
            COMPANY_SECONDS,
            "its stages have loaded",
        ),
        (scene(A0, front=router(0)), PLANNED, soon, "its ring turns"),
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
    assert [notice.reason for notice in life.told] == ["Serving"]


def test_conditions_of_others_are_left_to_them():
    life = Life()
    life.see(scene(A0))
    life.status["conditions"].append(
        {"type": "Backup", "status": "True", "reason": "Done", "lastTransitionTime": at()}
    )
    assert life.see(scene(A0), 60) is None


def test_a_second_operator_is_told_once_and_its_end_takes_the_condition_away():
    life = Life()
    life.see(scene(A0))
    life.see(scene(A0, conflict="two operators want to serve it"), 60)
    assert life.condition("OperatorConflict")["message"] == "two operators want to serve it"
    assert [notice.reason for notice in life.told].count("SecondOperator") == 1
    assert life.waits is None, "something is wrong, so it does not wait"
    assert life.see(scene(A0, conflict="two operators want to serve it"), 120) is None
    life.see(scene(A0), 180)
    assert "OperatorConflict" not in {each["type"] for each in life.status["conditions"]}
    assert life.see(scene(A0), 240) is None


def test_a_status_that_cannot_be_read_is_written_anew():
    life = Life()
    life.status = {"conditions": "none", "stages": 3}
    assert life.see(scene(A0))["readyReplicas"] == 1


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


@given(st.lists(scenes(), min_size=2, max_size=5), st.data())
@settings(max_examples=30)
def test_whatever_happens_each_transition_is_told_once(found, data):
    life, happened = Life(), []
    for minute, seen in enumerate(found):
        before = {each["type"]: each for each in life.status.get("conditions", [])}
        life.see(seen, 60 * minute, data.draw(st.sampled_from([PLANNED, REFUSED])))
        moved = rfc3339(NOW + timedelta(minutes=minute))
        happened += [
            f"{each['type']} {each['status']}"
            for each in life.status["conditions"]
            if each["type"] in before and each["lastTransitionTime"] == moved
        ]
        if minute == 0:
            life.told.clear()
    told = [
        part.partition(" (")[0]
        for notice in life.told
        for part in notice.note.partition(": ")[0].split(", ")
        if " still " not in part
    ]
    assert sorted(told) == sorted(happened)
