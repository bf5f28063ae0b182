"""What a pod really is, read from what Kubernetes says of it in a dozen places. Pure.

`status.phase` alone tells little: a pod whose image cannot be pulled is Pending, one that crashes
every minute is Running. The truth is in the conditions, in the states of its containers and in the
last words of those that ended; here it becomes one state, one reason and one sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from stageline_api.status import StageState
from stageline_operator.kinds import Object
from stageline_operator.messages import clean, joined, last_line

CRASHES: Final = 5
"""Restarts after which a crash-looping pod is replaced: the kubelet waits minutes between by now,
and another node may do better."""

IMAGE_REASONS: Final = frozenset(
    {
        "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
        "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed",
    }
)  # fmt: skip
CONFIG_REASONS: Final = frozenset(
    {
        "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
        "PreCreateHookError", "PreStartHookError", "PostStartHookError",
    }
)  # fmt: skip
FAILED_MOUNT: Final = "FailedMount"
"""As kubelets call it in their Events: it stands nowhere in a pod."""
_FROM_OUTSIDE: Final = {
    137: "killed by SIGKILL (by hand, by its kubelet, or for want of memory)",
    143: "ended by SIGTERM",
}
"""What the process wrote last has nothing to do with these."""
_PULL = "ImagePullBackOff"
_CAUSE_OF_PULL = "ErrImagePull: "


@dataclass(frozen=True, slots=True)
class PodTruth:
    """One pod at one moment."""

    state: StageState
    """As far as the pod itself tells; what its worker reports is told apart from it."""
    ready: bool = False
    failed: bool = False
    """It will not come back by itself: it needs to be replaced."""
    reason: str = ""
    """Kubernetes' own word for what is wrong; empty when nothing is."""
    message: str = ""
    """What is wrong, or what it waits for, in a sentence."""
    restarts: int = 0
    node: str = ""
    ip: str = ""
    deleting: bool = False


def pod_truth(pod: Object, lacks: str = "") -> PodTruth:
    """The truth about `pod`; `lacks` says what its volumes wait for, where that is known."""
    truth = _first_of(pod, lacks)
    status = _status(pod)
    containers = list(_containers(status))
    return replace(
        truth,
        message=clean(truth.message),
        restarts=sum(int(container.get("restartCount", 0)) for container in containers),
        node=pod.get("spec", {}).get("nodeName", ""),
        ip=status.get("podIP", ""),
    )


def _first_of(pod: Object, lacks: str) -> PodTruth:
    """What outweighs the rest comes first: an end that is decided, then what keeps it from work."""
    return (
        _leaving(pod)
        or _ended(pod)
        or _unscheduled(pod)
        or _stuck_container(_status(pod))
        or _at_work(_status(pod), lacks)
    )


def _leaving(pod: Object) -> PodTruth | None:
    if not pod.get("metadata", {}).get("deletionTimestamp"):
        return None
    status = _status(pod)
    why = _condition(status, "DisruptionTarget")
    reason = status.get("reason") or why.get("reason") or "Terminating"
    message = status.get("message") or why.get("message") or "it is being deleted"
    return PodTruth("Draining", reason=reason, message=message, deleting=True)


def _ended(pod: Object) -> PodTruth | None:
    status = _status(pod)
    phase, reason = status.get("phase", ""), status.get("reason", "")
    if reason == "NodeLost" or phase == "Unknown":
        node = pod.get("spec", {}).get("nodeName", "its node")
        return _failure("NodeLost", status.get("message") or f"{node} does not answer")
    if phase == "Failed":
        ends = [_terminated(container) for container in _containers(status)]
        bad = next((end for end in ends if end.get("exitCode")), {})
        reason = reason or ("OOMKilled" if bad.get("reason") == "OOMKilled" else "Error")
        return _failure(reason, status.get("message") or _end(bad) or "its containers ended")
    if phase == "Succeeded":
        if pod.get("spec", {}).get("restartPolicy", "Always") == "Always":
            return _failure("Completed", "its containers ended, though they should run")
        return PodTruth("Serving", ready=True)
    return None


def _failure(reason: str, message: str) -> PodTruth:
    return PodTruth("Failed", failed=True, reason=reason, message=message)


def _unscheduled(pod: Object) -> PodTruth | None:
    if pod.get("spec", {}).get("nodeName"):
        return None
    condition = _condition(_status(pod), "PodScheduled")
    if condition.get("status") == "False":
        return PodTruth(
            "Pending",
            reason=condition.get("reason") or "Unschedulable",
            message=condition.get("message") or "no node fits it",
        )
    return PodTruth("Pending", message="it waits for the scheduler to find it a node")


def _stuck_container(status: Object) -> PodTruth | None:
    """The first container that cannot start, or ended."""
    for container in _containers(status):
        waiting = container.get("state", {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in IMAGE_REASONS:
            return _pull(reason, message, container)
        if reason in CONFIG_REASONS:
            return PodTruth("Pending", reason=reason, message=message or "it cannot be made")
        if reason == "CrashLoopBackOff":
            return _crashed(container, container.get("lastState", {}).get("terminated") or {})
        ended = container.get("state", {}).get("terminated")
        if ended and ended.get("exitCode") != 0:
            return _crashed(container, ended)
    return None


def _pull(reason: str, message: str, container: Object) -> PodTruth:
    """Kubelets say ErrImagePull and ImagePullBackOff in turns: for whoever reads it is one thing.

    Newer ones quote the cause while they back off, so that it is the same text in both.
    """
    image = container.get("image", "the image")
    if reason in ("ErrImagePull", _PULL):
        cause = message if reason == "ErrImagePull" else message.partition(_CAUSE_OF_PULL)[2]
        return PodTruth("Pending", reason=_PULL, message=cause or f"{image} cannot be pulled")
    return PodTruth("Pending", reason=reason, message=message or f"{image} cannot be used")


def _crashed(container: Object, ended: Object) -> PodTruth:
    waits = container.get("state", {}).get("waiting") is not None
    reason = "CrashLoopBackOff" if waits else "Error"
    return PodTruth(
        "Failed",
        failed=int(container.get("restartCount", 0)) >= CRASHES,
        reason="OOMKilled" if ended.get("reason") == "OOMKilled" else reason,
        message=_end(ended) or "its container ends again and again",
    )


def _end(ended: Object) -> str:
    """The last words of a container that ended, unless it was not asked for any."""
    if not ended:
        return ""
    code = ended.get("exitCode", "unknown")
    if ended.get("reason") == "OOMKilled":
        return joined("it used more memory than its limit", last_line(ended.get("message", "")))
    if code in _FROM_OUTSIDE:
        return f"exit code {code}, {_FROM_OUTSIDE[code]}"
    return joined(f"exit code {code}", last_line(ended.get("message", "")))


def _at_work(status: Object, lacks: str) -> PodTruth:
    if _condition(status, "Ready").get("status") == "True":
        return PodTruth("Loaded", ready=True)
    states = [container.get("state", {}) for container in _containers(status)]
    if states and all("running" in state for state in states):
        return PodTruth("Starting", message=joined("it is not ready yet", _came_from(status)))
    if lacks:
        return PodTruth("Pending", reason=FAILED_MOUNT, message=lacks)
    words = "it waits for its volumes, its network or its image: kubectl describe pod says which"
    return PodTruth("Pending", message=words)


def _came_from(status: Object) -> str:
    """Why it is being started once more, if it is."""
    ends = [container.get("lastState", {}).get("terminated") for container in _containers(status)]
    last = next((_end(end) for end in ends if end), "")
    return f"it was started again after {last}" if last else ""


def _status(pod: Object) -> Object:
    status: Object = pod.get("status") or {}
    return status


def _condition(status: Object, kind: str) -> dict[str, Any]:
    return next((one for one in status.get("conditions") or () if one.get("type") == kind), {})


def _terminated(container: Object) -> dict[str, Any]:
    ended: dict[str, Any] = container.get("state", {}).get("terminated") or {}
    return ended


def _containers(status: Object) -> Iterator[Object]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()
