"""What `kubectl get pods` says of a pod: the one word that tells how it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stageline_local.apiserver.kinds import Object


def pod_columns(pod: Object, age: Callable[[str | None], str]) -> list[Any]:
    """READY, STATUS, RESTARTS, AGE, and IP, NODE, NOMINATED NODE, READINESS GATES."""
    status, spec = pod.get("status", {}), pod["spec"]
    containers = status.get("containerStatuses", [])
    ready = sum(bool(each.get("ready")) for each in containers)
    return [
        f"{ready}/{len(spec.get('containers', ()))}",
        _state(pod),
        _restarts(containers, age),
        age(pod["metadata"].get("creationTimestamp")),
        status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        "<none>",
    ]


def _restarts(containers: list[Object], age: Callable[[str | None], str]) -> str:
    count = sum(each.get("restartCount", 0) for each in containers)
    ends = [
        ended["finishedAt"]
        for each in containers
        if (ended := each.get("lastState", {}).get("terminated")) and ended.get("finishedAt")
    ]
    return f"{count} ({age(max(ends))} ago)" if count and ends else str(count)


def _state(pod: Object) -> str:
    status = pod.get("status", {})
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    containers = status.get("containerStatuses", [])
    for container in reversed(containers):
        reason = _of_container(container) or reason
    runs = any(each.get("ready") and "running" in each.get("state", {}) for each in containers)
    if reason == "Completed" and runs:
        is_ready = any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in status.get("conditions", ())
        )
        reason = "Running" if is_ready else "NotReady"
    if "deletionTimestamp" not in pod["metadata"]:
        return reason
    if status.get("reason") == "NodeLost":
        return "Unknown"
    return reason if status.get("phase") in ("Failed", "Succeeded") else "Terminating"


def _of_container(container: Object) -> str:
    state = container.get("state", {})
    if waiting := state.get("waiting"):
        return str(waiting.get("reason", ""))
    if ended := state.get("terminated"):
        if ended.get("reason"):
            return str(ended["reason"])
        signal = ended.get("signal")
        return f"Signal:{signal}" if signal else f"ExitCode:{ended.get('exitCode', 0)}"
    return ""
