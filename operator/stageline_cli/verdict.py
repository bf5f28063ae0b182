"""Is there any use in going on? Asked until a resource was ready for the first time. Pure.

What has once been ready is repaired for ever: its trouble came later, and may go away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stageline_cli.summary import condition
from stageline_operator.labels import COMPONENT, PROFILE_COMPONENT

Object = dict[str, Any]

HOPELESS_CRASHES = 3
_SIGNALLED = 128  # above it, the exit code is not the program's own verdict


def hopeless(resource: Object, pods: Iterable[Object]) -> str | None:
    """Why a resource that was never ready will not become so: a sentence, None while it may."""
    stalled = condition(resource, "Stalled")
    if stalled.get("status") == "True":
        return _sentence(stalled, condition(resource, "Ready"))
    return next((why for pod in pods if (why := _given_up(pod))), None)


def _sentence(stalled: Object, ready: Object) -> str:
    told = (entry.get("message") for entry in (stalled, ready))
    return next(filter(None, told), str(stalled.get("reason")))


def _given_up(pod: Object) -> str | None:
    name = pod["metadata"]["name"]
    is_profile = pod["metadata"].get("labels", {}).get(COMPONENT) == PROFILE_COMPONENT
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        crashes, last = status.get("restartCount", 0), next(_ends(status), None)
        if last is None:
            continue
        why = last.get("message") or f"exit code {last.get('exitCode')}"
        if is_profile and 0 < last.get("exitCode", 0) < _SIGNALLED:
            return str(why)
        if crashes >= HOPELESS_CRASHES:
            return f"{name} died {crashes} times before it was up: {why}"
    return None


def _ends(status: Object) -> Iterator[Object]:
    """How the container ended, the last time first."""
    for field in ("state", "lastState"):
        if ended := (status.get(field) or {}).get("terminated"):
            yield ended
