"""Which Event tells of a write of status: every transition once, the most telling one first."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_api.status import UNSEEN
from stageline_operator.notices import notices
from stageline_operator.reasons import Reason
from support.objects import at

TYPES = (
    "Ready", "Reconciling", "Stalled", "Planned", "StagesScheduled", "ModelLoaded",
    "PipelineConnected", "RouterReady",
)  # fmt: skip
NEW = {
    "Ready": ("Unknown", "Accepted"), "Reconciling": ("True", "Profiling"),
    "Stalled": ("False", "Progressing"), "Planned": ("Unknown", "Profiling"),
    "StagesScheduled": ("Unknown", "NotPlanned"), "ModelLoaded": ("Unknown", "NotPlanned"),
    "PipelineConnected": ("Unknown", "NotPlanned"), "RouterReady": ("Unknown", "NotPlanned"),
}  # fmt: skip
PLANNED = NEW | {
    "Ready": ("False", "StageStarting"), "Planned": ("True", "Planned"),
    "StagesScheduled": ("False", "Scheduling"), "ModelLoaded": ("False", "StageStarting"),
    "PipelineConnected": ("False", "StagesNotLoaded"), "RouterReady": ("False", "RouterStarting"),
}  # fmt: skip
LOADED = PLANNED | {
    "StagesScheduled": ("True", "Scheduled"), "ModelLoaded": ("True", "Loaded"),
}  # fmt: skip
SERVING = LOADED | {
    "Ready": ("True", "Serving"), "Reconciling": ("False", "Settled"),
    "PipelineConnected": ("True", "Connected"), "RouterReady": ("True", "Available"),
}  # fmt: skip
REFUSED = NEW | {
    "Ready": ("False", "PlanRefused"), "Reconciling": ("False", "PlanRefused"),
    "Stalled": ("True", "PlanRefused"), "Planned": ("False", "PlanRefused"),
}  # fmt: skip
CRASHED = SERVING | {
    "Ready": ("False", "StageCrashed"), "Reconciling": ("True", "Healing"),
    "ModelLoaded": ("False", "StageCrashed"), "PipelineConnected": ("False", "StagesNotLoaded"),
}  # fmt: skip
OVERDUE = CRASHED | {
    "Reconciling": ("False", "ProgressDeadlineExceeded"),
    "Stalled": ("True", "ProgressDeadlineExceeded"),
}  # fmt: skip
BLOCKED = SERVING | {
    "Ready": ("True", "RolloutBlocked"), "Reconciling": ("False", "PlanRefused"),
    "Stalled": ("True", "PlanRefused"), "Planned": ("False", "PlanRefused"),
}  # fmt: skip
CONFLICT = {"OperatorConflict": ("True", "SecondOperator")}
ROLLING = SERVING | {"Ready": ("True", "RollingOut"), "Reconciling": ("True", "RollingOut")}

STEPS = {
    "first sight": (UNSEEN, NEW, None),
    "planned": (
        NEW, PLANNED, "Normal Planned Planned True, Ready False, StagesScheduled False, "
        "ModelLoaded False, PipelineConnected False, RouterReady False: Planned is Planned",
    ),
    "refused": (
        UNSEEN, REFUSED, "Warning PlanRefused Ready False, Reconciling False, Stalled True, "
        "Planned False: Ready is PlanRefused",
    ),
    "a part on the way": (
        PLANNED, LOADED,
        "Normal Loaded ModelLoaded True, StagesScheduled True: ModelLoaded is Loaded",
    ),
    "ready": (
        LOADED, SERVING, "Normal Serving Ready True, Reconciling False, PipelineConnected True, "
        "RouterReady True: Ready is Serving",
    ),
    "all at once": (
        UNSEEN, SERVING, "Normal Serving Ready True, Reconciling False, Planned True, "
        "StagesScheduled True, ModelLoaded True, PipelineConnected True, RouterReady True: "
        "Ready is Serving",
    ),
    "a crash": (
        SERVING, CRASHED, "Warning StageCrashed Ready False, Reconciling True, ModelLoaded False, "
        "PipelineConnected False: Ready is StageCrashed",
    ),
    "another cause": (
        CRASHED, CRASHED | {"Ready": ("False", "StageImagePull")},
        "Warning StageImagePull Ready still False: Ready is StageImagePull",
    ),
    "a cause that passes": (CRASHED, CRASHED | {"Ready": ("False", "StageLoading")}, None),
    "another cause of a part": (
        CRASHED, CRASHED | {"ModelLoaded": ("False", "StageImagePull")}, None,
    ),
    "it stalls": (
        CRASHED, OVERDUE, "Warning ProgressDeadlineExceeded Stalled True, Reconciling False: "
        "Stalled is ProgressDeadlineExceeded",
    ),
    "it goes on": (
        OVERDUE, CRASHED,
        "Normal Progressing Stalled False, Reconciling True: Stalled is Progressing",
    ),
    "a rollout": (
        SERVING, ROLLING,
        "Normal RollingOut Ready still True, Reconciling True: Ready is RollingOut",
    ),
    "the cause before what it blocks": (
        ROLLING, BLOCKED, "Warning PlanRefused Stalled True, Ready still True (RolloutBlocked), "
        "Reconciling False, Planned False: Stalled is PlanRefused",
    ),
    "a second operator": (
        SERVING, SERVING | CONFLICT,
        "Warning SecondOperator OperatorConflict True: OperatorConflict is SecondOperator",
    ),
    "no second operator any more": (
        SERVING | CONFLICT, SERVING, "Normal SecondOperator OperatorConflict False: no second "
        "operator wants to serve it any more",
    ),
    "nothing": (SERVING, SERVING, None),
}  # fmt: skip


def written(conditions):
    """A status with these conditions."""
    if conditions is UNSEEN:
        return UNSEEN
    return {
        "conditions": [
            {
                "type": kind, "status": status, "reason": reason, "message": f"{kind} is {reason}",
                "lastTransitionTime": at(),
            }
            for kind, (status, reason) in conditions.items()
        ]
    }  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_told_by_one_event(step):
    before, after, expected = STEPS[step]
    told = notices(written(before), written(after))
    assert [f"{one.type} {one.reason} {one.note}" for one in told] == [expected] * bool(expected)


def test_numbers_and_words_are_not_told():
    after = written(CRASHED)
    for condition in after["conditions"]:
        condition["message"] = "other words"
    assert notices(written(CRASHED), after) == ()


def test_what_is_lost_is_told_again():
    (told,) = notices({"conditions": "none"}, written(SERVING))
    assert told.note.startswith("Ready True, Reconciling False, Planned True")


WHY = "no socket link to llama-aaa-0-1:7070: Connection refused"


def with_links(*notes):
    """A status whose stages have these notes on their transport."""
    stages = [
        {"pipeline": "llama-aaa-0", "stage": n, "state": "Serving", "transport": "grpc"}
        | ({"transportNote": note} if note else {})
        for n, note in enumerate(notes)
    ]
    return written(SERVING) | {"stages": stages}


def test_links_that_fall_back_are_one_warning_and_told_once():
    before, after = with_links("", "", ""), with_links("", WHY, WHY)
    (told,) = notices(before, after)
    assert (told.type, told.reason) == ("Warning", "LinkFellBack")
    assert told.note == f"stage 1 of llama-aaa-0 sends over grpc: {WHY} (and 1 links more)"
    assert notices(after, after) == ()
    (told,) = notices(with_links("", WHY, ""), after)
    assert told.note.startswith("stage 2 of llama-aaa-0 ")
    assert notices(after, before) == (), "status shows that it is over"


reasons = st.sampled_from([reason.value for reason in Reason])
statuses = st.fixed_dictionaries(
    {kind: st.tuples(st.sampled_from(["True", "False", "Unknown"]), reasons) for kind in TYPES}
)


@given(st.lists(statuses, min_size=1, max_size=8))
def test_every_transition_of_a_life_is_told_exactly_once(life):
    seen = dict.fromkeys(TYPES, "Unknown") | {"Reconciling": "True", "Stalled": "False"}
    before, told, happened = UNSEEN, [], []
    for step in life:
        events = notices(before, written(step))
        assert len(events) <= 1, "those of one write share an Event"
        for event in events:
            named = re.findall(r"(\w+)(?: still)? (?:True|False|Unknown)", heading(event))
            assert (event.type == "Warning") == any(hard(step[kind][1]) for kind in named)
            assert event.reason in {reason for _, reason in step.values()}
            told += re.findall(r"(\w+) (True|False|Unknown)", listed(event))
        now = {kind: status for kind, (status, _) in step.items()}
        happened += [(kind, now[kind]) for kind in TYPES if now[kind] != seen[kind]]
        before, seen = written(step), now
    assert sorted(told) == sorted(happened)


def heading(event):
    """What an Event lists."""
    return event.note.partition(": ")[0]


def listed(event):
    """Its transitions, without what stays."""
    return re.sub(r"\w+ still \w+", "", heading(event))


def hard(reason):
    return Reason(reason).hard or reason in (Reason.ROLLOUT_BLOCKED, Reason.SECOND_OPERATOR)
