"""What the operator observes, made by hand: a resource called llama, its pods and their reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from stageline_api.plan import plan
from stageline_api.plan_request import plan_request
from stageline_api.resource import PipelineDeployment
from stageline_operator import names
from stageline_operator.kinds import DEPLOYMENT, POD, Object
from stageline_operator.labels import OWNER, PIPELINE, REVISION, STAGE
from stageline_operator.observed import (
    Observed,
    PipelineKey,
    PipelineReport,
    PodKey,
    RevisionRecord,
    StageReport,
)
from stageline_operator.situation import Situation, situation
from stageline_operator.truth import PodTruth, pod_truth
from support.profiles import dense

NAME = "llama"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
STAGES = 3
FIRST = PodKey("aaa", 0, 0)


def at(seconds: float = 0) -> str:
    """RFC 3339, this long after NOW."""
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def resource(status: Object | None = None, generation: int = 1, **spec: object) -> Object:
    """As the API server has it; keywords are fields of its spec."""
    whole: Object = {
        "model": {"uri": "hf://meta/llama"},
        "pipeline": {"stages": STAGES},
        "replicas": 1,
        "resources": {"deviceMemory": "80Gi"},
        **spec,
    }
    return {
        "metadata": {"name": NAME, "namespace": "default", "uid": "u", "generation": generation},
        "spec": whole,
        "status": status or {},
    }


def deployment(found: Object) -> PipelineDeployment:
    """The model of a resource."""
    metadata = {"name": NAME, "namespace": "default"}
    return PipelineDeployment.model_validate({"metadata": metadata, "spec": found["spec"]})


@cache
def record(revision: str = "aaa", number: int = 1, device_memory: bool = True) -> RevisionRecord:
    """A revision of six layers on three stages."""
    made = deployment(resource() if device_memory else resource(resources={}))
    profile = dense(6)
    return RevisionRecord(
        revision=revision,
        number=number,
        image="worker:1",
        spec=made.spec,
        profile=profile,
        plan=plan(profile, plan_request(made)),
    )


def keys(revision: str, *indices: int) -> tuple[PipelineKey, ...]:
    """Pipelines of one revision."""
    return tuple(PipelineKey(revision, index) for index in indices)


def pod(
    key: PodKey = FIRST,
    *,
    ready: bool = True,
    phase: str = "Running",
    node: str = "node-1",
    container: Object | None = None,
    deleted: float | None = None,
    restarts: int = 0,
    **status: object,
) -> Object:
    """A stage's pod: healthy unless told otherwise.

    `container` replaces fields of its container's status; `deleted` is the end of its grace in
    seconds from NOW.
    """
    name = names.pod_name(NAME, key)
    metadata: Object = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "labels": {
            OWNER: NAME, REVISION: key.revision, PIPELINE: str(key.index), STAGE: str(key.stage),
        },
    }  # fmt: skip
    if deleted is not None:
        metadata["deletionTimestamp"] = at(deleted)
    running: Object = {
        "name": "worker",
        "image": "worker:1",
        "ready": ready,
        "restartCount": restarts,
        "state": {"running": {"startedAt": at(-60)}},
    }
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": metadata,
        "spec": {"restartPolicy": "Always"} | ({"nodeName": node} if node else {}),
        "status": {
            "phase": phase,
            "podIP": "10.0.0.1" if node else "",
            "conditions": conditions,
            "containerStatuses": [running | (container or {})] if node else [],
            **status,
        },
    }


def waiting(reason: str, message: str = "") -> Object:
    """A container that does not start."""
    return {"ready": False, "state": {"waiting": {"reason": reason, "message": message}}}


def ended(code: int = 1, message: str = "", reason: str = "Error", lived: float = 5) -> Object:
    """The state of a container that ended just now."""
    return {
        "terminated": {
            "exitCode": code, "reason": reason, "message": message,
            "startedAt": at(-lived), "finishedAt": at(),
        },
    }  # fmt: skip


def crashing(message: str = "", code: int = 1, reason: str = "Error", lived: float = 5) -> Object:
    """A container in CrashLoopBackOff."""
    back_off = waiting("CrashLoopBackOff", "back-off 20s restarting failed container=worker")
    return {**back_off, "lastState": ended(code, message, reason, lived)}


def unschedulable(key: PodKey, message: str = "0/3 nodes are available: 3 too small.") -> Object:
    """A pod that no node takes."""
    condition = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
    }  # fmt: skip
    return pod(key, ready=False, phase="Pending", node="", conditions=[condition])


def truth(**more: object) -> PodTruth:
    """The truth about such a pod."""
    return pod_truth(pod(**more))


def stage_report(stage: int = 0, **more: object) -> StageReport:
    """A worker that serves; keywords replace fields."""
    fields: dict[str, object] = {
        "state": "Serving", "first_layer": 2 * stage, "end_layer": 2 * stage + 2,
        "loaded_bytes": 1000, "total_bytes": 1000, "loads": 1, "transport": "grpc",
        "compute_seconds": 0.0124, "hop_seconds": 0.00031,
    }  # fmt: skip
    return StageReport(stage=stage, **(fields | more))


def report(
    key: PipelineKey, state: str = "Ready", stages: tuple[StageReport, ...] | None = None, **more
) -> PipelineReport:
    """What a leader says; all its stages serve unless told otherwise."""
    told = tuple(map(stage_report, range(STAGES))) if stages is None else stages
    return PipelineReport(
        names.pipeline_name(NAME, key), key.revision, state, stages=told, sessions=1, **more
    )


def pods_of(*pipelines: PipelineKey) -> dict[PodKey, Object]:
    """Healthy pods of whole pipelines."""
    return {
        PodKey(*key, stage): pod(PodKey(*key, stage))
        for key in pipelines
        for stage in range(STAGES)
    }


def gpu_node(
    name: str = "gpu-1",
    memory: object = 81_559,
    gpus: int = 8,
    taints: tuple[Object, ...] = (),
    **labels,
) -> Object:
    """A node whose GPUs have so many MiB by their label; None: it has no such label."""
    told = {} if memory is None else {"nvidia.com/gpu.memory": str(memory)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **told, **labels}},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": {"cpu": "64", "nvidia.com/gpu": str(gpus)}},
    }


def router(
    available: int = 1, wanted: int = 1, updated: int | None = None, refused: str = ""
) -> Object:
    """The router's Deployment; `refused` is why its next pod cannot be made."""
    failure = {"type": "ReplicaFailure", "status": "True", "message": refused}
    return {
        "metadata": {"name": names.router(NAME), "generation": 1},
        "spec": {"replicas": wanted},
        "status": {
            "observedGeneration": 1,
            "availableReplicas": available,
            "updatedReplicas": wanted if updated is None else updated,
            "conditions": [failure] if refused else [],
        },
    }


def scene(
    *kept: PipelineKey,
    pods: dict[PodKey, Object] | None = None,
    reports: dict[PipelineKey, PipelineReport] | None = None,
    found: Object | None = None,
    records: tuple[RevisionRecord, ...] | None = None,
    front: Object | None = None,
    profile_pod: Object | None = None,
    valid: bool = True,
    **observed: object,
) -> Situation:
    """A resource of which these pipelines are kept; all of them serve unless told otherwise."""
    found = found or resource(replicas=len(kept))
    pods = pods_of(*kept) if pods is None else pods
    children = {POD: {each["metadata"]["name"]: each for each in pods.values()}}
    front = router() if front is None else front
    if front:
        children[DEPLOYMENT] = {front["metadata"]["name"]: front}
    told = {key: report(key) for key in kept} if reports is None else reports
    seen = Observed(found, children, reports=told, **observed)
    if records is None:
        records = tuple(record(name) for name in sorted({key.revision for key in kept} | {"aaa"}))
    by_name = {each.revision: each for each in records}
    return situation(seen, deployment(found) if valid else None, by_name, kept, profile_pod)
