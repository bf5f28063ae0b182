"""What is said of a resource in trouble: its pods, its ring, its routers, its cluster."""

from __future__ import annotations

from stageline_operator.healing import Healing, Replaced
from stageline_operator.kinds import POD, SERVICE
from stageline_operator.observed import PodKey
from support.objects import (
    NOW,
    crashing,
    pod,
    pods_of,
    report,
    router,
    scene,
    stage_report,
    unschedulable,
    waiting,
)
from support.told import A0, ONE, Told, sick

TABLE = {
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
}  # fmt: skip
