"""What is said of a resource on its way: seen, planned, refused, rolled out, scaled."""

from __future__ import annotations

from stageline_operator.planning import Planning
from support.objects import crashing, pod, pods_of, record, report, resource, router, scene, waiting
from support.told import A0, A1, B0, NEW, NEWER, Told, profiling

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
    "another operator beside this one": Told(
        scene(A0, conflict="the operator of release b/b wants to serve this namespace too"),
        ("OperatorConflict=True SecondOperator", "Ready=True Serving", "Stalled=False Progressing"),
        "release b/b wants to serve", where="OperatorConflict",
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
    "one of two routers": Told(
        scene(A0, front=router(1, wanted=2)),
        ("Ready=True Serving", "RouterReady=True Available", "Reconciling=True Starting"),
        "1 of 2 routers serve",
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
