"""What keeps a resource from being as its spec asks, the worst first, each with its place. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from stageline_api.quantity import format_bytes
from stageline_api.status import StageStatus
from stageline_operator.healing import BUDGET, LONGEST_WAIT, Healing
from stageline_operator.messages import clean, joined
from stageline_operator.observed import PipelineKey, PodKey
from stageline_operator.planning import Planning
from stageline_operator.reasons import Reason
from stageline_operator.refusals import refusal
from stageline_operator.situation import Pipeline, Router, Situation, Stage
from stageline_operator.truth import CONFIG_REASONS, FAILED_MOUNT, IMAGE_REASONS, PodTruth

_BY_WORD: Final = {
    **dict.fromkeys(IMAGE_REASONS, Reason.STAGE_IMAGE_PULL),
    **dict.fromkeys(CONFIG_REASONS, Reason.STAGE_CONFIG),
    FAILED_MOUNT: Reason.STAGE_CONFIG,
    "Unschedulable": Reason.STAGE_UNSCHEDULABLE,
    "SchedulingGated": Reason.STAGE_UNSCHEDULABLE,
    "OOMKilled": Reason.STAGE_OUT_OF_MEMORY,
    "CrashLoopBackOff": Reason.STAGE_CRASHED,
    "Error": Reason.STAGE_CRASHED,
    "Completed": Reason.STAGE_CRASHED,
    "Evicted": Reason.STAGE_EVICTED,
    "Preempting": Reason.STAGE_EVICTED,
    "NodeShutdown": Reason.STAGE_EVICTED,
    "Terminated": Reason.STAGE_EVICTED,
    "NodeLost": Reason.STAGE_NODE_LOST,
}
_VOLUME: Final = re.compile(r"(?i)persistentvolume|volume node affinity")
_UNREACHED: Final = "check that the operator may reach port 7070 of it (NetworkPolicy)"
_ADVICE: Final = {
    Reason.STAGE_UNSCHEDULABLE: "add nodes that fit, or change what {spec} asks of them",
    Reason.STAGE_VOLUME: "make the claim or the volume, or change what {spec} mounts",
    Reason.STAGE_IMAGE_PULL: "check {spec}.image",
    Reason.STAGE_CONFIG: "check the Secrets, ConfigMaps and volumes that {spec} names",
    Reason.STAGE_OUT_OF_MEMORY: "raise the memory in {spec}.resources.limits",
    Reason.STAGE_CRASHED: "see its log with kubectl logs {pod} --previous",
    Reason.STAGE_EVICTED: "it is replaced; {spec}.resources.requests would keep it on its node",
    Reason.STAGE_NODE_LOST: "it is replaced once Kubernetes gives its node up; check the node",
    Reason.STAGE_FAILED: "see kubectl describe pod {pod}",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or not done yet."""

    reason: Reason
    message: str
    """A sentence that names the place, and what to do where somebody must."""


def problems(
    situation: Situation,
    planning: Planning,
    healing: Healing,
    invalid: str,
    entries: Mapping[PodKey, StageStatus],
) -> tuple[Problem, ...]:
    """All of them, the worst first, by place among equals.

    `invalid` says what is wrong with the spec, if it is; `entries` are what status says of the
    stages, so that a message moves no more often than they do.
    """
    found = [
        *_of_spec(situation, planning, invalid),
        *_of_children(situation),
        *_of_budget(situation, healing),
        *(problem for one in situation.kept_stages if (problem := _of_stage(one, entries))),
        *(
            problem
            for one in situation.kept_pipelines
            if (problem := _of_pipeline(one, situation.observed.silences))
        ),
        *_of_room(situation, planning),
        *_of_router(situation),
    ]
    cut = (Problem(one.reason, clean(one.message)) for one in found)
    return tuple(sorted(cut, key=lambda problem: problem.reason.rank))


def _of_spec(situation: Situation, planning: Planning, invalid: str) -> Iterator[Problem]:
    if invalid:
        yield Problem(Reason.INVALID_SPEC, invalid)
    elif planning.refused:
        yield Problem(_refusal(planning.refused), planning.message)
    elif planning.message:
        yield Problem(Reason.PROFILE_UNREADABLE, planning.message)
    elif planning.record is None:
        yield _of_profile(situation, planning)


def _of_profile(situation: Situation, planning: Planning) -> Problem:
    wished = planning.profile_pod
    name = wished["metadata"]["name"] if wished is not None else "to be made"
    if situation.profile is not None:
        name, truth = situation.profile
        if truth.reason and not truth.deleting:
            words = f"the profile of the model (pod {name}): {_why(truth, name)}"
            return Problem(Reason.PROFILE_FAILED, words)
    reader = "the pod of another PipelineDeployment" if planning.waits else f"pod {name}"
    words = f"the model's sizes are being read before it is cut ({reader})"
    return Problem(Reason.PROFILING, words)


def _refusal(word: str) -> Reason:
    return next((reason for reason in Reason if reason == word), Reason.PLAN_REFUSED)


def _of_children(situation: Situation) -> Iterator[Problem]:
    for (kind, name), owner in sorted(situation.observed.taken.items(), key=str):
        yield Problem(
            Reason.NAME_TAKEN,
            f"{kind.kind} {name} is {owner}'s: rename or delete it, or give this "
            "PipelineDeployment another name",
        )
    for (kind, name), sentence in sorted(situation.observed.refused.items(), key=str):
        reason, words = refusal(sentence)
        yield Problem(reason, f"{kind.kind} {name} was refused: {words}")


def _of_budget(situation: Situation, healing: Healing) -> Iterator[Problem]:
    for stage in situation.kept_stages:
        if stage.key in healing.exhausted:
            minutes = round(LONGEST_WAIT.total_seconds() / 60)
            why = stage.truth.message if stage.truth is not None else ""
            yield Problem(
                Reason.RESTART_BUDGET_SPENT,
                joined(
                    f"{stage.place} was replaced {healing.history[stage.key].times} times without "
                    f"an hour of health between (its budget is {BUDGET})",
                    why,
                    f"it is tried again every {minutes} minutes",
                ),
            )


def _of_stage(stage: Stage, entries: Mapping[PodKey, StageStatus]) -> Problem | None:
    truth = stage.truth
    if stage.loaded:
        return None
    if truth is None:
        return Problem(Reason.STAGE_STARTING, f"{stage.place}: its pod is being made")
    if truth.deleting:
        return Problem(Reason.STAGE_LEAVING, f"{stage.place}: {_words(truth)}")
    if truth.reason:
        return Problem(_reason(truth), f"{stage.place}: {_why(truth, stage.pod_name)}")
    if stage.heard is not None and stage.heard.state == "Failed":
        return Problem(Reason.STAGE_FAILED, f"{stage.place}: {stage.heard.error or 'it failed'}")
    return _unready(stage, truth, entries[stage.key])


def _unready(stage: Stage, truth: PodTruth, entry: StageStatus) -> Problem:
    if stage.state != "Loading":
        return Problem(Reason.STAGE_STARTING, joined(stage.place, truth.message))
    done = f"{format_bytes(entry.bytes_loaded)} of {format_bytes(entry.bytes_total)}"
    words = f"{done} of its weights are loaded" if entry.bytes_total else "it loads its weights"
    return Problem(Reason.STAGE_LOADING, f"{stage.place}: {words}")


def _of_pipeline(pipeline: Pipeline, silences: Mapping[PipelineKey, str]) -> Problem | None:
    if pipeline.ready or not all(stage.loaded for stage in pipeline.stages):
        return None  # the stage itself is the problem
    report = pipeline.report
    if report is None:
        why = silences.get(pipeline.key) or _UNREACHED
        leader = f"its leader, pod {pipeline.stages[0].pod_name}, is not heard"
        return Problem(Reason.PIPELINE_SILENT, f"{pipeline.place}: {leader}: {why}")
    reason = Reason.RING_BROKEN if report.sessions else Reason.PIPELINE_CONNECTING
    return Problem(reason, joined(pipeline.place, report.message or "its ring is being closed"))


def _of_room(situation: Situation, planning: Planning) -> Iterator[Problem]:
    missing = situation.wanted - len(situation.kept)
    if missing > 0 and planning.record is not None:
        yield Problem(
            Reason.WAITING_FOR_ROOM,
            f"{missing} of {situation.wanted} pipelines are to be made once others have made way",
        )


def _of_router(situation: Situation) -> Iterator[Problem]:
    router = situation.router
    if not router.exists:
        return
    if router.refused:
        reason, words = refusal(router.refused)
        yield Problem(reason, f"a pod of the router was refused: {words}")
    for name, truth in router.pods:
        if truth.reason and not truth.deleting:
            why = _why(truth, name, "spec.router")
            yield Problem(Reason.ROUTER_FAILED, f"the router (pod {name}): {why}")
    if not router.settled:
        words = f"{router.updated} of {router.wanted} routers are made, {router.available} answer"
        yield Problem(Reason.ROUTER_STARTING, "; ".join((words, *_awaited(router))))


def _awaited(router: Router) -> Iterator[str]:
    """What the first router that is not ready waits for."""
    for name, truth in router.pods:
        if not truth.ready and not truth.deleting and truth.message:
            yield f"pod {name}: {truth.message}"
            return


def _why(truth: PodTruth, pod: str, spec: str = "spec") -> str:
    """What is wrong with a pod, and what to do; `spec` is the part of the spec it is made from."""
    if truth.reason == FAILED_MOUNT:  # it says itself what to do
        return _words(truth)
    return joined(_words(truth), _ADVICE[_reason(truth)].format(pod=pod, spec=spec))


def _words(truth: PodTruth) -> str:
    return joined(truth.reason, truth.message)


def _reason(truth: PodTruth) -> Reason:
    """The scheduler says Unschedulable of a missing claim too, and no node would mend that."""
    found = _BY_WORD.get(truth.reason, Reason.STAGE_FAILED)
    if found is Reason.STAGE_UNSCHEDULABLE and _VOLUME.search(truth.message):
        return Reason.STAGE_VOLUME
    return found
