"""What is said of a resource: whether it serves, whether it comes further, and why not."""

from __future__ import annotations

import pytest

from stageline_api.status import Condition, PipelineDeploymentStatus
from stageline_operator.conditions import NEEDS_HELP
from stageline_operator.healing import Healing
from stageline_operator.kinds import Object
from stageline_operator.observed import PipelineKey
from stageline_operator.reasons import Reason
from stageline_operator.situation import Situation
from stageline_operator.status import status
from support import told_of_life, told_of_trouble
from support.objects import NOW, at, report, resource, scene
from support.told import A0, PLANNED, Told

TABLE = told_of_life.TABLE | told_of_trouble.TABLE


@pytest.mark.parametrize("told", TABLE.values(), ids=TABLE)
def test_what_is_said(told):
    found = told.conditions()
    said = {f"{kind}={each['status']} {each['reason']}" for kind, each in found.items()}
    assert said >= set(told.expected), f"{sorted(set(told.expected) - said)} is not in {said}"
    assert told.words in found[told.where]["message"], found[told.where]["message"]


@pytest.mark.parametrize("told", TABLE.values(), ids=TABLE)
def test_the_rules_of_conditions(told):
    found = told.conditions()
    assert list(found) == [
        "Ready", "Reconciling", "Stalled", "Planned", "StagesScheduled", "ModelLoaded",
        "PipelineConnected", "RouterReady",
        *(["OperatorConflict"] if told.situation.observed.conflict else []),
    ]  # fmt: skip
    both = {found[kind]["status"] for kind in ("Reconciling", "Stalled")}
    assert "Unknown" not in both, "kstatus takes what is not True as False"
    assert both != {"True"}, "kstatus would take the first of the two"
    for condition in found.values():
        Condition.model_validate(condition)
        assert condition["reason"] in set(Reason)
        assert condition["observedGeneration"] == 1
        assert condition["message"], f"{condition['type']} says nothing"


def again(situation: Situation, before: Object, **more: object) -> dict[str, Condition]:
    """The conditions a minute after `before` was written."""
    situation.observed.resource["status"] = before
    update = status(situation, PLANNED, Healing(), "", NOW.replace(minute=1))
    parsed = PipelineDeploymentStatus.model_validate(update.status)
    return {condition.type: condition for condition in parsed.conditions}


def test_the_time_of_a_condition_moves_only_with_its_status():
    loading = scene(A0, reports={A0: report(A0, "Connecting", message="x")})
    before = status(loading, PLANNED, Healing(), "", NOW).status
    told = again(scene(A0, reports={A0: report(A0, "Connecting", message="y")}), before)
    assert told["Ready"].message.endswith("y")
    assert told["Ready"].last_transition_time == at(0), "it was False, and is"
    told = again(scene(A0), before)
    assert told["Ready"].last_transition_time == at(60), "it became True"
    assert told["Planned"].last_transition_time == at(0)


def test_every_reason_has_one_line_that_says_what_it_means():
    for reason in Reason:
        assert reason.meaning.endswith("."), f"{reason} has no sentence"
        assert "\n" not in reason.meaning
    assert len({reason.meaning for reason in Reason}) == len(Reason)


def test_what_needs_help_is_worse_than_what_is_only_not_done_yet():
    assert all(reason.hard for reason in NEEDS_HELP)
    assert not any(
        reason.hard for reason in (Reason.STAGE_LOADING, Reason.ROUTER_STARTING, Reason.SERVING)
    )


def test_the_index_of_a_pipeline_is_told_with_its_name():
    key = PipelineKey("aaa", 3)
    told = Told(scene(key, reports={}, found=resource()), ()).conditions()
    assert "pipeline 3 (llama-aaa-3)" in told["Ready"]["message"]
