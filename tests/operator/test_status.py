"""What status has beside its conditions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_api.status import MAX_STAGE_ENTRIES, PipelineDeploymentStatus
from stageline_operator.entries import bounded, shown_bytes, shown_time, stage_entries
from stageline_operator.healing import Healing, Replaced
from stageline_operator.observed import PipelineKey, PodKey
from stageline_operator.planning import Planning
from stageline_operator.status import history
from support.life import A0, A1, ONE, REFUSED, Life, loading
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
    scene,
    stage_report,
    waiting,
)


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


def test_a_link_that_fell_back_says_why():
    life, why = Life(), "no socket link to https://me:hunter2@x:7070"
    told = (stage_report(0, transport_note=why), stage_report(1), stage_report(2))
    life.see(scene(A0, reports={A0: report(A0, stages=told)}))
    assert life.stage(0)["transportNote"] == "no socket link to https://***@x:7070"
    assert "transportNote" not in life.stage(1)
    assert [notice.reason for notice in life.told] == ["Serving", "LinkFellBack"]


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


def test_a_status_can_be_read_back():
    life = Life()
    life.see(loading(loaded=300))
    parsed = PipelineDeploymentStatus.model_validate(life.status)
    assert parsed.stages[1].bytes_loaded == 300


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


def test_the_pipeline_of_another_revision_is_not_updated():
    life = Life()
    life.see(scene(A0, PipelineKey("bbb", 0)), planning=Planning(record("bbb", 2)))
    assert (life.status["replicas"], life.status["updatedReplicas"]) == (2, 1)
