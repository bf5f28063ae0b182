"""A pod's status, as Kubernetes tells it: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from stageline_local.client import Object
from stageline_local.kubelet.addresses import HOST
from stageline_local.process import Observation, Phase


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container as the kubelet sees it."""

    name: str
    image: str
    process: Observation = field(default_factory=lambda: Observation(""))
    message: str = ""
    """Termination message of the last life that ended."""
    started: bool = False
    """Its startup probe, if it has one, has succeeded in this life."""
    ready: bool = False
    refused: str = ""
    """Why it cannot be made; empty while nothing speaks against it."""


def pod_status(
    pod: Object, address: str, views: Sequence[ContainerView], now: datetime, started: datetime
) -> Object:
    """The status to write. `started`: when the kubelet took the pod on.

    Conditions of others are kept, and each of ours keeps its time while its status is the same.
    """
    phase = _phase(pod, views)
    before = (pod.get("status") or {}).get("conditions") or []
    ours = [_since(condition, before, now) for condition in _conditions(phase, views)]
    names = {condition["type"] for condition in ours}
    return {
        "phase": phase,
        "conditions": ours + [other for other in before if other["type"] not in names],
        "containerStatuses": [container_status(pod, view) for view in views],
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": HOST,
        "hostIPs": [{"ip": HOST}],
        "startTime": timestamp(started),
        "observedGeneration": pod["metadata"].get("generation", 0),
    }


def container_status(pod: Object, view: ContainerView) -> Object:
    """One entry of containerStatuses."""
    process = view.process
    status: Object = {
        "name": view.name,
        "image": view.image,
        "imageID": "",
        "ready": _ready(view),
        "started": view.started and process.started is not None,
        "restartCount": process.restarts,
        "state": _state(pod, view),
        "lastState": {},
    }
    if process.last and process.phase is not Phase.ENDED:
        status["lastState"] = {"terminated": _terminated(view)}
    if process.pid:
        status["containerID"] = f"process://{process.pid}"
    return status


def timestamp(moment: datetime) -> str:
    """As Kubernetes writes it, in UTC and whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _state(pod: Object, view: ContainerView) -> Object:
    process = view.process
    if process.started:
        return {"running": {"startedAt": timestamp(process.started)}}
    if process.phase is Phase.ENDED and process.last:
        return {"terminated": _terminated(view)}
    if view.refused:
        return {"waiting": {"reason": "CreateContainerConfigError", "message": view.refused}}
    if process.last and process.delay:
        metadata = pod["metadata"]
        who = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        message = f"back-off {process.delay:g}s restarting failed container={view.name} pod={who}"
        return {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
    if process.last:
        return {"terminated": _terminated(view)}
    return {"waiting": {"reason": "ContainerCreating"}}


def _terminated(view: ContainerView) -> Object:
    process = view.process
    assert process.last is not None
    status: Object = {
        "exitCode": process.exit_code,
        "reason": "Error" if process.exit_code else "Completed",
        "startedAt": timestamp(process.last.started),
        "finishedAt": timestamp(process.last.ended),
    }
    return {**status, "message": view.message} if view.message else status


def _ready(view: ContainerView) -> bool:
    return view.ready and view.process.started is not None


def _phase(pod: Object, views: Sequence[ContainerView]) -> str:
    ended = [view for view in views if view.process.phase is Phase.ENDED and view.process.last]
    if len(ended) == len(views):
        return "Failed" if any(view.process.exit_code for view in ended) else "Succeeded"
    if any(not view.process.last and not view.process.started for view in views):
        return "Pending"
    return "Running"


def _conditions(phase: str, views: Sequence[ContainerView]) -> list[Object]:
    unready = [view.name for view in views if not _ready(view)]
    why: Object = {}
    if phase == "Succeeded":
        why = {"reason": "PodCompleted"}
    elif phase == "Failed":
        why = {"reason": "PodFailed"}
    elif unready:
        names = " ".join(unready)
        message = f"containers with unready status: [{names}]"
        why = {"reason": "ContainersNotReady", "message": message}
    done = {"reason": "PodCompleted"} if phase == "Succeeded" else {}
    return [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Initialized", "status": "True", **done},
        {"type": "ContainersReady", "status": _word(not why), **why},
        {"type": "Ready", "status": _word(not why), **why},
    ]


def _word(truth: bool) -> str:
    return "True" if truth else "False"


def _since(condition: Object, before: Sequence[Object], now: datetime) -> Object:
    for old in before:
        if (old["type"], old["status"]) == (condition["type"], condition["status"]):
            return {**condition, "lastTransitionTime": old.get("lastTransitionTime")}
    return {**condition, "lastTransitionTime": timestamp(now)}
