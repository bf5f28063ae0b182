"""Which stage pods are replaced, when, and how often. Pure.

A crashed container is restarted by the kubelet; a pod that will not come back by itself is deleted
here, and made anew because it is missing. Only the failed pod: its neighbours keep their weights.
The first replacement comes at once, the next ones wait 10 s, 20 s, 40 s, … up to 5 minutes. Five
without an hour of health between spend the budget: the resource says Stalled, while a pod is still
tried every 5 minutes, so that it recovers by itself once the cause is gone.

The history of a stage is what its entry in status has; nothing else is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from stageline_operator.kinds import Object
from stageline_operator.observed import PodKey
from stageline_operator.situation import Stage
from stageline_operator.times import from_rfc3339

BUDGET: Final = 5
"""Replacements of one stage without an hour of health between."""
HEALTH: Final = timedelta(hours=1)
NODE_LOSS: Final = timedelta(seconds=60)
"""How long after its grace a pod may still be there before it is deleted by force."""
FIRST_WAIT: Final = timedelta(seconds=10)
LONGEST_WAIT: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Replaced:
    """How often a stage's pod was replaced, and when last."""

    times: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Replacement:
    """A pod to delete, and by force where its node cannot confirm the end."""

    name: str
    uid: str
    force: bool


@dataclass(frozen=True, slots=True)
class Healing:
    """What is to be done now, and what is to be remembered."""

    replace: tuple[Replacement, ...] = ()
    exhausted: tuple[PodKey, ...] = ()
    """Stages that are not well and have spent their budget."""
    history: Mapping[PodKey, Replaced] = field(default_factory=dict)
    again: float | None = None
    """Seconds until the next pod may be replaced, or deleted by force."""


def heal(stages: Iterable[Stage], history: Mapping[PodKey, Replaced], now: datetime) -> Healing:
    """The replacements that are due among `stages`.

    Pods that are stuck on their way out are freed in pipelines that are not kept as well: they
    hold the place of new ones.
    """
    replace: list[Replacement] = []
    exhausted: list[PodKey] = []
    remembered: dict[PodKey, Replaced] = {}
    waits: list[timedelta] = []
    for stage in stages:
        past = _past(stage, history.get(stage.key), now)
        wait = _wait(stage, past, now)
        if stage.pod is not None and wait is not None and wait <= timedelta():
            going = stage.truth is not None and stage.truth.deleting
            replace.append(_replacement(stage.pod, force=going))
            if not going:
                past = Replaced(past.times + 1 if past else 1, now)
        elif wait is not None:
            waits.append(wait)
        if past is not None and stage.kept:
            remembered[stage.key] = past
            if past.times >= BUDGET and not (stage.truth and stage.truth.ready):
                exhausted.append(stage.key)
    again = min(waits).total_seconds() if waits else None
    return Healing(tuple(replace), tuple(exhausted), remembered, again)


def _wait(stage: Stage, past: Replaced | None, now: datetime) -> timedelta | None:
    """How long until the pod is to be deleted; None when it is not to be."""
    if stage.pod is None or stage.truth is None:
        return None
    if stage.truth.deleting:
        # The API server writes the end of the grace period here, not its beginning.
        return from_rfc3339(stage.pod["metadata"]["deletionTimestamp"]) + NODE_LOSS - now
    if not (stage.kept and stage.truth.failed):
        return None
    if past is None:
        return timedelta()
    return back_off(past.times) - max(now - past.last, timedelta())


def back_off(times: int) -> timedelta:
    """How long a stage waits for its next pod after `times` replacements."""
    if times == 0:
        return timedelta()
    if times >= BUDGET:
        return LONGEST_WAIT
    return min(FIRST_WAIT * (1 << (times - 1)), LONGEST_WAIT)


def _past(stage: Stage, past: Replaced | None, now: datetime) -> Replaced | None:
    """What still counts of the history: an hour of health wipes it out."""
    if past is None or (stage.pod is not None and _longest_life(stage.pod, now) >= HEALTH):
        return None
    return past


def _longest_life(pod: Object, now: datetime) -> timedelta:
    lives = [timedelta()]
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        running = container.get("state", {}).get("running")
        if running and container.get("ready"):
            lives.append(now - from_rfc3339(running["startedAt"]))
        for state in (container.get("state", {}), container.get("lastState", {})):
            ended = state.get("terminated") or {}
            if ended.get("startedAt") and ended.get("finishedAt"):
                lives.append(from_rfc3339(ended["finishedAt"]) - from_rfc3339(ended["startedAt"]))
    return max(lives)


def _replacement(pod: Object, *, force: bool) -> Replacement:
    metadata = pod["metadata"]
    return Replacement(metadata["name"], metadata["uid"], force)
