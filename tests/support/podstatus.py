"""What a kubelet writes into a pod's status, and the fates that a test can give to a pod. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a pod. Made by the functions below."""

    kind: Literal["ready", "starting", "unschedulable", "waiting", "crashing", "failed", "done"]
    reason: str = ""
    message: str = ""
    exit_code: int = 0
    restarts: int = 0
    after: float = 0.0
    """Seconds from the pod's binding until this is so; ContainerCreating before."""
    ends_after: float = 0.0
    """Seconds from its deletion until it is gone."""


def ready(*, after: float = 0.0, ends_after: float = 0.0) -> Fate:
    """Runs and is Ready."""
    return Fate("ready", after=after, ends_after=ends_after)


def starting() -> Fate:
    """Runs, and is never Ready: the stage loads for ever."""
    return Fate("starting")


def unschedulable(message: str) -> Fate:
    """No node takes it; "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."."""
    return Fate("unschedulable", "Unschedulable", message)


def waiting(reason: str, message: str = "") -> Fate:
    """The container does not start: ImagePullBackOff, CreateContainerConfigError, ..."""
    return Fate("waiting", reason, message)


def crashing(
    exit_code: int = 1, message: str = "", reason: str = "Error", restarts: int = 3
) -> Fate:
    """In CrashLoopBackOff; the last life ended with this message."""
    return Fate("crashing", reason, message, exit_code, restarts)


def oom_killed(restarts: int = 3) -> Fate:
    """Killed again and again for want of memory."""
    return crashing(137, reason="OOMKilled", restarts=restarts)


def failed(reason: str, message: str = "") -> Fate:
    """The pod as a whole is over: Evicted, NodeShutdown, UnexpectedAdmissionError, ..."""
    return Fate("failed", reason, message, 137)


def done(message: str = "", *, after: float = 0.0) -> Fate:
    """Ended well, with this termination message."""
    return Fate("done", "Completed", message, after=after)


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ended(exit_code: int, reason: str, message: str = "") -> Object:
    """The state of a container that has ended."""
    terminated = {
        "exitCode": exit_code, "reason": reason, "message": message, "startedAt": now(),
        "finishedAt": now(), "containerID": "fake://1",
    }  # fmt: skip
    return {"terminated": terminated}


def pod_status(
    pod: Object, fate: Fate, ip: str = "", restarts: int = 0, last: Object | None = None
) -> Object:
    """The status of a pod that has met this fate; `last` is how its container ended before."""
    if fate.kind == "unschedulable":
        return {"phase": "Pending", "conditions": [_condition("PodScheduled", False, fate)]}
    phase, state = _phase_and_state(fate)
    serving = fate.kind == "ready"
    finished = {"reason": "PodCompleted"} if fate.kind == "done" else {}
    status: Object = {
        "phase": phase,
        "conditions": [
            _condition("PodScheduled", True),
            _condition("Initialized", True),
            *(
                {**_condition(kind, serving), **({} if serving else finished)}
                for kind in ("ContainersReady", "Ready")
            ),
        ],
        "hostIP": "127.0.0.1",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": pod["metadata"]["creationTimestamp"],
        "containerStatuses": [
            _container(container, state, fate, restarts, last)
            for container in pod["spec"]["containers"]
        ],
    }
    if fate.kind == "failed":
        status |= {"reason": fate.reason, "message": fate.message}
    return status


def node_status(*, there: bool) -> Object:
    """The status of a node, as it writes it or as the node controller does when it is gone."""
    resources = {"cpu": "16", "memory": "128Gi", "pods": "500"}
    condition = {
        "type": "Ready", "status": "True" if there else "Unknown", "message": "",
        "reason": "KubeletReady" if there else "NodeStatusUnknown",
        "lastTransitionTime": now(), "lastHeartbeatTime": now(),
    }  # fmt: skip
    return {"allocatable": resources, "capacity": resources, "conditions": [condition]}


def lost(status: Object) -> Object:
    """What the node controller makes of the status of a pod whose node is heard no more."""
    kept = [c for c in status.get("conditions", ()) if c["type"] != "Ready"]
    return {"conditions": [*kept, _condition("Ready", False)]}


def _phase_and_state(fate: Fate) -> tuple[str, Object]:
    match fate.kind:
        case "ready" | "starting":
            return "Running", {"running": {"startedAt": now()}}
        case "crashing":
            why = "back-off 5m0s restarting failed container"
            return "Running", {"waiting": {"reason": "CrashLoopBackOff", "message": why}}
        case "failed":
            return "Failed", ended(fate.exit_code, "Error")
        case "done":
            return "Succeeded", ended(0, fate.reason, fate.message)
        case _:
            return "Pending", {"waiting": {"reason": fate.reason, "message": fate.message}}


def _container(
    container: Object, state: Object, fate: Fate, restarts: int, last: Object | None
) -> Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": fate.kind == "ready",
        "started": fate.kind == "ready",
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }


def _condition(kind: str, true: bool, fate: Fate | None = None) -> Object:
    condition = {
        "type": kind, "status": "True" if true else "False", "lastTransitionTime": now(),
        "lastProbeTime": None,
    }  # fmt: skip
    if fate is not None:
        return {**condition, "reason": fate.reason, "message": fate.message}
    if not true:
        message = "containers with unready status"
        return {**condition, "reason": "ContainersNotReady", "message": message}
    return condition
