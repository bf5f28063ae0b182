"""What is said of a resource: whether it serves, whether it comes further, and why not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from stageline_api.status import Condition, PipelineDeploymentStatus
from stageline_operator.conditions import NEEDS_HELP
from stageline_operator.healing import Healing, Replaced
from stageline_operator.kinds import POD, SERVICE, Object
from stageline_operator.observed import PipelineKey, PodKey
from stageline_operator.planning import Planning
from stageline_operator.reasons import Reason
from stageline_operator.situation import Situation
from stageline_operator.status import status
from support.objects import (
    NOW,
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
    unschedulable,
    waiting,
)

A0, A1 = keys("aaa", 0, 1)
(B0,) = keys("bbb", 0)
ONE, NEW = PodKey(*A0, 1), PodKey(*B0, 1)
PLANNED = Planning(record("aaa"))
NEWER = Planning(record("bbb", 2))


@dataclass
class Told:
    """A situation, and the conditions that must follow: `Ready=False Reason`, and words of it."""

    situation: Situation
    expected: tuple[str, ...]
    words: str = ""
    planning: Planning = PLANNED
    healing: Healing = field(default_factory=Healing)
    invalid: str = ""
    where: str = "Ready"
    """The condition that has the words."""

    def conditions(self) -> dict[str, Object]:
        update = status(self.situation, self.planning, self.healing, self.invalid, NOW)
        return {condition["type"]: condition for condition in update.status["conditions"]}


def sick(found: Object, key: PodKey = ONE, **more: object) -> Situation:
    """One pipeline, of which one stage's pod is this one, and the ring is open."""
    reports = {A0: report(A0, "Waiting", message="stage 1 is not heard")}
    return scene(A0, pods=pods_of(A0) | {key: found}, reports=reports, **more)


def profiling(**more: object) -> Situation:
    found = pod(**more)
    found["metadata"]["name"] = "llama-profile-0"
    return scene(found=resource(), front={}, profile_pod=found)


TABLE = {
    "all is well": Told(
        scene(A0, A1),
        (
            "Ready=True Serving", "Reconciling=False Settled", "Stalled=False Progressing",
            "Planned=True Planned", "StagesScheduled=True Scheduled", "ModelLoaded=True Loaded",
            "PipelineConnected=True Connected", "RouterReady=True Available",
        ),
        "2 of 2 pipelines and 1 of 1 routers serve",
    ),
    "just seen": Told(
        scene(found=resource(), front={}),
        (
            "Ready=Unknown Accepted", "Reconciling=True Profiling", "Stalled=False Progressing",
            "Planned=Unknown Profiling", "StagesScheduled=Unknown NotPlanned",
            "ModelLoaded=Unknown NotPlanned", "PipelineConnected=Unknown NotPlanned",
            "RouterReady=Unknown NotPlanned",
        ),
        "its model is profiled and planned before any of its pods is made",
        Planning(),
    ),
    "being profiled": Told(
        profiling(ready=False),
        ("Ready=Unknown Accepted", "Reconciling=True Profiling", "Planned=Unknown Profiling"),
        "",
        Planning(),
    ),
    "the profile fails": Told(
        profiling(ready=False, container=crashing("no such model: meta/llama")),
        ("Ready=False ProfileFailed", "Reconciling=True Profiling", "Planned=False ProfileFailed"),
        "(pod llama-profile-0): CrashLoopBackOff: exit code 1: no such model: meta/llama: see "
        "its log with kubectl logs llama-profile-0 --previous",
        Planning(),
    ),
    "the profile cannot be read": Told(
        profiling(ready=False, phase="Succeeded"),
        ("Ready=False ProfileUnreadable", "Stalled=True ProfileUnreadable"),
        "same version",
        Planning(message="run operator and worker of the same version"),
    ),
    "invalid": Told(
        scene(found=resource(), front={}, valid=False),
        (
            "Ready=False InvalidSpec", "Reconciling=False InvalidSpec", "Stalled=True InvalidSpec",
            "Planned=False InvalidSpec", "RouterReady=Unknown NotPlanned",
        ),
        "spec.x is wrong",
        Planning(),
        invalid="spec.x is wrong",
    ),
    "refused by the plan": Told(
        scene(found=resource(), front={}),
        ("Ready=False PlanRefused", "Stalled=True PlanRefused", "Planned=False PlanRefused"),
        "it does not fit",
        Planning(refused="PlanRefused", message="it does not fit"),
    ),
    "refused for a reason that is not in the table": Told(
        scene(found=resource(), front={}),
        ("Ready=False PlanRefused", "Stalled=True PlanRefused"),
        "odd",
        Planning(refused="Odd", message="odd"),
    ),
    "invalid, while the old revision serves": Told(
        scene(A0, valid=False),
        ("Ready=True RolloutBlocked", "Reconciling=False InvalidSpec", "Stalled=True InvalidSpec"),
        "1 of 1 pipelines and 1 of 1 routers serve the old revision; spec.x is wrong",
        Planning(),
        invalid="spec.x is wrong",
    ),
    "scaled to zero": Told(
        scene(found=resource(replicas=0)),
        (
            "Ready=False ScaledToZero", "Reconciling=False Settled", "Stalled=False Progressing",
            "Planned=True Planned", "StagesScheduled=False ScaledToZero",
            "ModelLoaded=False ScaledToZero", "PipelineConnected=False ScaledToZero",
            "RouterReady=True Available",
        ),
        "spec.replicas is 0",
    ),
    "on the way to zero": Told(
        scene(found=resource(replicas=0), pods=pods_of(A0)),
        ("Ready=False ScaledToZero", "Reconciling=True Scaling"),
    ),
    "no memory known": Told(
        scene(A0),
        ("Planned=True PlannedWithoutMemory", "Ready=True Serving"),
        "",
        Planning(record("aaa", device_memory=False)),
    ),
    "no pod yet": Told(
        scene(A0, pods={}, reports={}, front=router(0)),
        (
            "Ready=False RouterStarting", "Reconciling=True Starting",
            "StagesScheduled=False Scheduling", "ModelLoaded=False StageStarting",
            "PipelineConnected=False StagesNotLoaded", "RouterReady=False RouterStarting",
        ),
        "1 of 1 routers are made, 0 answer",
    ),
    "no node fits": Told(
        sick(unschedulable(ONE)),
        (
            "Ready=False StageUnschedulable", "Reconciling=True Healing",
            "StagesScheduled=False StageUnschedulable", "ModelLoaded=False StageUnschedulable",
            "PipelineConnected=False StagesNotLoaded",
        ),
        "pipeline 0 stage 1 (pod llama-aaa-0-1): Unschedulable: 0/3 nodes are available: 3 too "
        "small: add nodes that fit, or change what spec asks of them",
    ),
    "no image": Told(
        sick(pod(ONE, ready=False, container=waiting("ErrImagePull", "worker:1: not found"))),
        (
            "Ready=False StageImagePull", "StagesScheduled=True Scheduled",
            "ModelLoaded=False StageImagePull",
        ),
        "pipeline 0 stage 1 (pod llama-aaa-0-1): ImagePullBackOff: worker:1: not found: check "
        "spec.image",
    ),
    "no Secret": Told(
        sick(pod(ONE, ready=False, container=waiting("CreateContainerConfigError", "no hf"))),
        ("Ready=False StageConfig",),
        "check the Secrets, ConfigMaps and volumes that spec names",
    ),
    "out of memory": Told(
        sick(pod(ONE, ready=False, container=crashing("", 137, "OOMKilled"))),
        ("Ready=False StageOutOfMemory",),
        "raise the memory in spec.resources.limits",
    ),
    "crashes": Told(
        sick(pod(ONE, ready=False, container=crashing("no such tensor"))),
        ("Ready=False StageCrashed", "Stalled=False Progressing"),
        "exit code 1: no such tensor: see its log with kubectl logs llama-aaa-0-1 --previous",
    ),
    "evicted": Told(
        sick(pod(ONE, ready=False, phase="Failed", reason="Evicted", message="low on memory")),
        ("Ready=False StageEvicted",),
        "Evicted: low on memory: it is replaced",
    ),
    "node lost": Told(
        sick(pod(ONE, ready=False, phase="Unknown")),
        ("Ready=False StageNodeLost",),
        "node-1 does not answer",
    ),
    "failed for a reason of the future": Told(
        sick(pod(ONE, ready=False, phase="Failed", reason="Eaten", message="by a bear")),
        ("Ready=False StageFailed",),
        "Eaten: by a bear: see kubectl describe pod llama-aaa-0-1",
    ),
    "being replaced": Told(
        sick(pod(ONE, deleted=30)),
        ("Ready=False StageLeaving", "ModelLoaded=False StageLeaving"),
        "it is being deleted",
    ),
    "loading": Told(
        scene(
            A0,
            pods=pods_of(A0) | {ONE: pod(ONE, ready=False)},
            reports={
                A0: report(
                    A0,
                    "Waiting",
                    (stage_report(1, state="Loading", loaded_bytes=1 << 29, total_bytes=1 << 30),),
                )
            },
        ),
        ("Ready=False StageLoading", "ModelLoaded=False StageLoading"),
        "pipeline 0 stage 1 (pod llama-aaa-0-1): 512 MiB of 1 GiB of its weights are loaded",
    ),
    "the worker says that it failed": Told(
        scene(
            A0,
            pods=pods_of(A0) | {ONE: pod(ONE, ready=False)},
            reports={A0: report(A0, "Waiting", (stage_report(1, state="Failed", error="no hf"),))},
        ),
        ("Ready=False StageFailed",),
        "(pod llama-aaa-0-1): no hf",
    ),
    "a cache that is full": Told(
        scene(A0, reports={A0: report(A0, "Ready", (stage_report(1, error="its cache is full"),))}),
        ("Ready=True Serving", "ModelLoaded=True LoadedWithComplaint"),
        "in memory; pipeline 0 stage 1 (pod llama-aaa-0-1): its cache is full",
        where="ModelLoaded",
    ),
    "ring broken": Told(
        scene(A0, reports={A0: report(A0, "Connecting", message="stage 2 missed its deadline")}),
        ("Ready=False RingBroken", "PipelineConnected=False RingBroken", "ModelLoaded=True Loaded"),
        "pipeline 0 (llama-aaa-0): stage 2 missed its deadline",
    ),
    "leader not heard": Told(
        scene(A0, reports={}),
        ("Ready=False PipelineSilent", "PipelineConnected=False PipelineSilent"),
        "its leader, pod llama-aaa-0-0, is not heard",
    ),
    "no router": Told(
        scene(A0, front=router(0)),
        ("Ready=False RouterStarting", "RouterReady=False RouterStarting"),
    ),
    "a router waits for a Secret": Told(
        scene(
            A0,
            front=router(0),
            router_pods={"r-0": pod(ready=False, container=waiting("ContainerCreating", ""))},
        ),
        ("Ready=False RouterStarting",),
        "0 answer; pod r-0: it waits for its volumes, its network or its image: kubectl describe",
    ),
    "router has no image": Told(
        scene(
            A0,
            front=router(0),
            router_pods={"r-0": pod(ready=False, container=waiting("ErrImagePull", "r:1: no"))},
        ),
        ("Ready=False RouterFailed", "RouterReady=False RouterFailed", "Reconciling=True Healing"),
        "the router (pod r-0): ImagePullBackOff: r:1: no: check spec.router.image",
    ),
    "one of two routers": Told(
        scene(A0, front=router(1, wanted=2)),
        ("Ready=True Serving", "RouterReady=True Available", "Reconciling=True Starting"),
        "1 of 2 routers serve",
    ),
    "name taken": Told(
        scene(A0, front={}, pods={}, reports={}, taken={(SERVICE, "llama"): "Service of Helm"}),
        ("Ready=False NameTaken", "Stalled=True NameTaken", "Reconciling=False NameTaken"),
        "Service llama is Service of Helm's: rename or delete it",
    ),
    "quota": Told(
        scene(A0, pods={}, reports={}, refused={(POD, "llama-aaa-0-0"): "exceeded quota: gpus"}),
        ("Ready=False QuotaExceeded", "StagesScheduled=False QuotaExceeded"),
        "Pod llama-aaa-0-0 was refused: exceeded quota: gpus: raise the quota, or lower "
        "spec.replicas or spec.resources",
    ),
    "refused by admission": Told(
        scene(A0, pods={}, reports={}, refused={(POD, "llama-aaa-0-0"): "denied by policy"}),
        ("Ready=False ChildRefused", "Stalled=False Progressing"),
        "was refused: denied by policy",
    ),
    "the CRD is old": Told(
        scene(A0, dropped=("spec.model.cache", "spec.x", "status.y", "status.z")),
        ("Ready=True Serving", "Planned=True PlannedWithOldCRD", "Stalled=False Progressing"),
        "every stage fits; the CRD in this cluster is older than the operator and drops "
        "spec.model.cache, spec.x, status.y and 1 more: apply manifests/crd.yaml",
        where="Planned",
    ),
    "the namespace ends": Told(
        scene(
            A0,
            pods={},
            reports={},
            refused={
                (POD, "llama-aaa-0-0"): 'pods "llama-aaa-0-0" is forbidden: unable to create new '
                "content in namespace x because it is being terminated"
            },
        ),
        ("Ready=False NamespaceTerminating", "Stalled=False Progressing"),
        "because it is being terminated: it ends with its namespace",
    ),
    "a claim that is not there": Told(
        sick(unschedulable(ONE, message='persistentvolumeclaim "models" not found')),
        ("Ready=False StageVolume", "StagesScheduled=False StageVolume"),
        'Unschedulable: persistentvolumeclaim "models" not found: make the claim or the volume',
    ),
    "a router that a quota forbids": Told(
        scene(A0, front=router(0, refused="pods is forbidden: exceeded quota: q, limited: pods=3")),
        ("Ready=False QuotaExceeded",),
        "a pod of the router was refused: pods is forbidden: exceeded quota: q, limited: pods=3: "
        "raise the quota",
    ),
    "the worst first": Told(
        scene(
            A0,
            pods={
                PodKey(*A0, 0): pod(PodKey(*A0, 0), ready=False, container=crashing("bang")),
                ONE: unschedulable(ONE),
                PodKey(*A0, 2): pod(PodKey(*A0, 2), ready=False),
            },
            reports={},
        ),
        ("Ready=False StageUnschedulable",),
        "what spec asks of them (and 2 more)",
    ),
    "budget spent": Told(
        sick(pod(ONE, ready=False, phase="Failed", reason="Evicted", message="low on memory")),
        ("Ready=False RestartBudgetSpent", "Stalled=True RestartBudgetSpent"),
        "pipeline 0 stage 1 (pod llama-aaa-0-1) was replaced 5 times without an hour of health "
        "between (its budget is 5): low on memory: it is tried again every 5 minutes",
        healing=Healing(exhausted=(ONE,), history={ONE: Replaced(5, NOW)}),
    ),
    "rolling out": Told(
        scene(A0, B0, found=resource(replicas=1), reports={A0: report(A0)}),
        ("Ready=True RollingOut", "Reconciling=True RollingOut", "Stalled=False Progressing"),
        "1 of 1 pipelines and 1 of 1 routers serve, 1 of the new revision bbb",
        NEWER,
    ),
    "rolling out, fewer serve": Told(
        scene(A0, B0, found=resource(replicas=2), reports={A0: report(A0)}),
        ("Ready=False PipelineSilent", "Reconciling=True RollingOut"),
        "",
        NEWER,
    ),
    "rolled out, the old not gone": Told(
        scene(B0, pods=pods_of(A0, B0)),
        ("Ready=True RollingOut", "Reconciling=True RollingOut"),
        "",
        NEWER,
    ),
    "the new revision cannot come up": Told(
        scene(
            A0,
            B0,
            found=resource(replicas=1),
            pods=pods_of(A0, B0)
            | {NEW: pod(NEW, ready=False, container=waiting("ErrImagePull", "w:2: no"))},
            reports={A0: report(A0)},
        ),
        (
            "Ready=True RolloutBlocked", "Reconciling=True RollingOut",
            "PipelineConnected=False StagesNotLoaded",
        ),
        "serve the old revision; pipeline 0 stage 1 (pod llama-bbb-0-1): ImagePullBackOff: w:2: no",
        NEWER,
    ),
    "scaling up": Told(
        scene(A0, found=resource(replicas=2)),
        ("Ready=False WaitingForRoom", "Reconciling=True Scaling"),
        "1 of 2 pipelines are to be made",
    ),
    "scaling down": Told(
        scene(A0, pods=pods_of(A0, A1)),
        ("Ready=True Serving", "Reconciling=True Scaling"),
    ),
}  # fmt: skip


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
