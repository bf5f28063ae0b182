"""The status of a resource: the conditions, the stages, and when it is worth a write. Pure.

Four rules keep it quiet. What is equal is not written. Measured numbers are shown in steps
(entries.py). A step on the way to Ready waits a moment for the next (`waits`). And a status that
differs in details alone is written at most every 5 seconds, for which `measuredAt` has the time of
the last such write: it moves only with it. Details are numbers, how far a stage is on its way, and
the words of conditions behind which nothing is wrong; whatever else moves takes the details along.

A rollout or a repair that does not come further for rollout.progressDeadline is stalled.
`progressedAt` has the last step that it came further: a stage got a node, loaded more, or became
ready, a pipeline or a router began to serve, the spec changed. The steps of a stage that its
kubelet restarts again and again do not count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from stageline_api.quantity import parse_duration
from stageline_api.status import (
    UNSEEN,
    Condition,
    PipelineDeploymentStatus,
    PlanStatus,
    StageState,
    StageStatus,
)
from stageline_operator.conditions import OPERATOR_CONFLICT, Case, conditions, is_bad
from stageline_operator.entries import EntryKey, bounded, stage_entries
from stageline_operator.healing import Healing, Replaced
from stageline_operator.kinds import Object
from stageline_operator.labels import COMPONENT, OWNER, STAGE, STAGE_COMPONENT
from stageline_operator.observed import PodKey, RevisionRecord
from stageline_operator.planning import Planning
from stageline_operator.problems import problems
from stageline_operator.reasons import Reason
from stageline_operator.situation import Situation
from stageline_operator.times import from_rfc3339, rfc3339

DETAILS_APART: Final = timedelta(seconds=5)
"""Between two writes that move nothing but details."""
COMPANY_SECONDS: Final = 0.2
"""A write of status costs the API server more than any other, so steps in a row share one."""
_ACTED_ON: Final = ("Ready", "Reconciling", "Stalled")
_RESTARTS_THAT_COUNT: Final = 1
"""A stage that was restarted more often comes no further by starting once more."""
_STEPS: Final[Mapping[StageState, int]] = {
    "Failed": 0, "Draining": 0, "Pending": 1, "Starting": 2, "Loading": 3,
    "Loaded": 4, "Serving": 5,
}  # fmt: skip
_NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """What is to be done about status."""

    status: Object | None
    """All of it, as the API server takes it; None when it is not to be written."""
    again: float | None
    """Seconds until it would change though nothing else does; None when it would not."""
    waits: float | None = None
    """Seconds that it may wait, as it tells of a step on the way: another that follows soon takes
    it along. 0: only where the API server is slow. None: not at all."""


def read_status(resource: Object) -> PipelineDeploymentStatus:
    """The status that `resource` was given; an empty one where it cannot be read."""
    if not was_seen(resource):
        return PipelineDeploymentStatus()
    try:
        return PipelineDeploymentStatus.model_validate(resource["status"])
    except ValidationError:
        return PipelineDeploymentStatus()


def was_seen(resource: Object) -> bool:
    """Whether an operator has written a status of `resource`."""
    return bool(resource.get("status")) and resource["status"] != UNSEEN


def history(situation: Situation) -> dict[PodKey, Replaced]:
    """How often the pods of the stages were replaced, as far as status remembers."""
    entries = _by_key(read_status(situation.observed.resource))
    found = {}
    for pipeline in situation.kept_pipelines:
        for stage in pipeline.stages:
            entry = entries.get((pipeline.name, stage.key.stage))
            if entry is not None and entry.last_replaced is not None:
                found[stage.key] = Replaced(entry.replacements, from_rfc3339(entry.last_replaced))
    return found


def status(
    situation: Situation,
    planning: Planning,
    healing: Healing,
    invalid: str,
    now: datetime,
) -> StatusUpdate:
    """What the status of the resource should be, where it is not so already.

    `invalid` is the sentence of a spec that cannot be used, empty where it can.
    """
    before = read_status(situation.observed.resource)
    entries = stage_entries(situation.pipelines, _by_key(before), healing.history)
    found = problems(situation, planning, healing, invalid, entries)
    case = Case(situation, planning, found)
    progressed_at = _progressed_at(case, entries, before, now)
    left = _time_left(case, progressed_at, now)
    if left is not None and left <= timedelta():
        case = Case(situation, planning, found, overdue=_deadline(situation))
        left = None
    after = _assembled(case, entries, before, now).model_copy(
        update={"progressed_at": progressed_at, "measured_at": before.measured_at}
    )
    update = _worth_writing(before, after, left, now)
    shown = situation.observed.resource.get("status")  # at first sight, by the API server itself
    return update if before.observed_generation or shown else replace(update, waits=None)


def _assembled(
    case: Case,
    entries: Mapping[PodKey, StageStatus],
    before: PipelineDeploymentStatus,
    now: datetime,
) -> PipelineDeploymentStatus:
    situation = case.situation
    record = case.planning.record or _newest_kept(situation)
    past = {condition.type: condition for condition in before.conditions}
    return PipelineDeploymentStatus(
        observed_generation=situation.generation,
        replicas=len(situation.kept),
        ready_replicas=case.ready,
        updated_replicas=case.updated,
        pipelines=f"{case.ready}/{situation.wanted}",
        stage_count=_stage_count(situation, record),
        selector=f"{OWNER}={situation.owner},{COMPONENT}={STAGE_COMPONENT},{STAGE}=0",
        plan=_plan(record),
        conditions=conditions(case, past, now),
        stages=bounded(entries),
    )


def _newest_kept(situation: Situation) -> RevisionRecord | None:
    """The plan that is followed while there is none of the current spec."""
    kept = {key.revision for key in situation.kept}
    records = (record for record in situation.records.values() if record.revision in kept)
    return max(records, key=lambda record: record.number, default=None)


def _stage_count(situation: Situation, record: RevisionRecord | None) -> int:
    if record is not None:
        return len(record.plan.partition)
    spec = situation.deployment.spec if situation.deployment is not None else None
    return (spec.known_stages or 0) if spec is not None else 0


def _plan(record: RevisionRecord | None) -> PlanStatus | None:
    if record is None:
        return None
    plan = record.plan
    return PlanStatus(
        revision=record.revision,
        partition=plan.partition,
        hash=plan.plan_hash,
        memory_checked=plan.memory_checked,
    )


def _progressed_at(
    case: Case,
    entries: Mapping[PodKey, StageStatus],
    before: PipelineDeploymentStatus,
    now: datetime,
) -> str:
    begins = _was_settled(before) and not case.settled
    if before.progressed_at is None or begins or _progressed(case, entries, before):
        return rfc3339(now)
    return before.progressed_at


def _was_settled(before: PipelineDeploymentStatus) -> bool:
    reconciling = _condition(before, "Reconciling")
    return reconciling is not None and reconciling.reason == Reason.SETTLED


def _progressed(
    case: Case, entries: Mapping[PodKey, StageStatus], before: PipelineDeploymentStatus
) -> bool:
    router = _condition(before, "RouterReady")
    answered = router is not None and router.status == "True"
    known = _by_key(before)
    return (
        case.situation.generation != before.observed_generation
        or case.ready > before.ready_replicas
        or case.updated > before.updated_replicas
        or len(case.situation.kept) < before.replicas
        or (case.situation.router.available > 0 and not answered)
        or any(_came_further(entry, known) for entry in bounded(entries))
    )


def _came_further(entry: StageStatus, known: Mapping[EntryKey, StageStatus]) -> bool:
    before = known.get((entry.pipeline, entry.stage))
    if before is None:
        return True
    if entry.restarts > _RESTARTS_THAT_COUNT:
        return False
    return (
        _STEPS[entry.state] > _STEPS[before.state]
        or entry.bytes_loaded > before.bytes_loaded
        or (bool(entry.node) and not before.node)
    )


def _time_left(case: Case, progressed_at: str, now: datetime) -> timedelta | None:
    """Until progress is overdue; None where none is expected."""
    deadline = _deadline(case.situation)
    if case.settled or not deadline:
        return None
    return from_rfc3339(progressed_at) + timedelta(milliseconds=parse_duration(deadline)) - now


def _deadline(situation: Situation) -> str:
    deployment = situation.deployment
    return deployment.spec.rollout.progress_deadline if deployment is not None else ""


def _worth_writing(
    before: PipelineDeploymentStatus,
    after: PipelineDeploymentStatus,
    left: timedelta | None,
    now: datetime,
) -> StatusUpdate:
    again = left.total_seconds() if left is not None else None
    if _same(before, after):
        return StatusUpdate(None, again)
    if _same(_without_details(before), _without_details(after)):
        wait = _until_details(before, now).total_seconds()
        if wait > 0:
            again = wait if again is None else min(wait, again)
            return StatusUpdate(None, again)
        after = after.model_copy(update={"measured_at": rfc3339(now)})
    return StatusUpdate(_dumped(after), again, _patience(before, after))


def _patience(before: PipelineDeploymentStatus, after: PipelineDeploymentStatus) -> float | None:
    """None where something is wrong or was, or something is so that one acts on."""
    if any(map(is_bad, (*before.conditions, *after.conditions))):
        return None
    if not before.conditions and not _is_true(after, "Ready"):
        return 0.0
    is_a_mere_step = (
        before.observed_generation == after.observed_generation
        and before.replicas in (0, after.replicas)
        and all(_is_true(before, kind) == _is_true(after, kind) for kind in _ACTED_ON)
    )
    return COMPANY_SECONDS if is_a_mere_step else None


def _is_true(whole: PipelineDeploymentStatus, kind: str) -> bool:
    found = _condition(whole, kind)
    return found is not None and found.status == "True"


def _until_details(before: PipelineDeploymentStatus, now: datetime) -> timedelta:
    if before.measured_at is None:
        return timedelta()
    return min(from_rfc3339(before.measured_at) + DETAILS_APART - now, DETAILS_APART)


def _same(before: PipelineDeploymentStatus, after: PipelineDeploymentStatus) -> bool:
    """Conditions that somebody else has added are none of ours."""
    ours = {OPERATOR_CONFLICT, *(condition.type for condition in after.conditions)}
    mine = tuple(condition for condition in before.conditions if condition.type in ours)
    return before.model_copy(update={"conditions": mine}) == after


def _without_details(whole: PipelineDeploymentStatus) -> PipelineDeploymentStatus:
    stages = (
        StageStatus(
            pipeline=entry.pipeline,
            stage=entry.stage,
            state="Pending",
            restarts=entry.restarts,
            replacements=entry.replacements,
            message=_NUMBER.sub("#", entry.message),
        )
        for entry in whole.stages
    )
    told = (
        condition.model_copy(
            update={"message": _NUMBER.sub("#", condition.message)}
            if is_bad(condition)
            else {"message": "", "reason": ""}
        )
        for condition in whole.conditions
    )
    update = {
        "stages": tuple(stages), "conditions": tuple(told),
        "progressed_at": None, "measured_at": None,
    }  # fmt: skip
    return whole.model_copy(update=update)


def _dumped(whole: PipelineDeploymentStatus) -> dict[str, Any]:
    """Empty fields are left out, but for the counts that people look for."""
    counts = {
        "replicas": whole.replicas,
        "readyReplicas": whole.ready_replicas,
        "updatedReplicas": whole.updated_replicas,
    }
    return {**whole.model_dump(mode="json", by_alias=True, exclude_defaults=True), **counts}


def _condition(whole: PipelineDeploymentStatus, kind: str) -> Condition | None:
    return next((one for one in whole.conditions if one.type == kind), None)


def _by_key(whole: PipelineDeploymentStatus) -> dict[EntryKey, StageStatus]:
    return {(entry.pipeline, entry.stage): entry for entry in whole.stages}
