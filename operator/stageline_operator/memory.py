"""What reconciling remembers of one resource between two looks at it. Pure: times are passed in.

Nothing in it is needed to be right, only to be patient: an operator that starts anew learns it
again with one request each.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from stageline_operator.cache import Child, controller_of, whose
from stageline_operator.decision import Notice
from stageline_operator.difference import covers
from stageline_operator.kinds import Object
from stageline_operator.labels import APPLIED
from stageline_operator.quarrels import Quarrel

ASK_AGAIN_SECONDS: Final = 30.0
"""After which a taken name or a refusal is tried again: nothing tells us when it is mended."""

LEAVING_SECONDS: Final = 2.0
"""The same, of what was a resource's whose name ours has now: garbage collection takes it."""

_SLOW_SECONDS: Final = 0.25
"""Of a reconcile's writes: an API server that takes longer has enough to do."""
_MANY: Final = 15.0
"""Reconciles in a second: where there are more, many resources are on their way."""
_PATIENCE: Final = 12.0
"""Seconds that a status waits which may, for each time that they are slower or more; at most:"""
LONGEST_PATIENCE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a child cannot be, until when we believe it."""

    sentence: str
    until: float


class Memory:
    """Obstacles and quarrels of the children of one resource."""

    def __init__(self) -> None:
        self._generation = 0
        self._taken: dict[Child, Obstacle] = {}
        self._refused: dict[Child, Obstacle] = {}
        self._quarrels: dict[Child, Quarrel] = {}
        self._waits: dict[Child, float] = {}
        self.obstacles = 0
        """Counts every obstacle that was met."""
        self.complaints: list[Notice] = []
        """Of quarrels, to be told."""
        self._status_due: float | None = None
        self._untold: tuple[Object, tuple[Notice, ...]] | None = None

    def forget_if_changed(self, resource: Object) -> None:
        """Another spec may be refused nothing: it is tried at once."""
        generation = resource["metadata"].get("generation", 0)
        if generation != self._generation:
            self._generation = generation
            self._taken.clear()
            self._refused.clear()
            self._quarrels.clear()

    def taken(self, now: float) -> dict[Child, str]:
        """Names that are somebody else's, and whose."""
        return _standing(self._taken, now)

    def refused(self, now: float) -> dict[Child, str]:
        """Children that the API server refused, and its sentences."""
        return _standing(self._refused, now)

    def was_taken(self, child: Child, obj: Object, now: float, *, leaving: bool) -> None:
        """The name is that of `obj`, which is not ours, and may be `leaving`."""
        self.obstacles += 1
        patience = LEAVING_SECONDS if leaving else ASK_AGAIN_SECONDS
        owner = f"an earlier {whose(obj)}" if leaving else whose(obj)
        self._taken[child] = Obstacle(owner, now + patience)

    def was_refused(self, child: Child, sentence: str, now: float) -> None:
        """The API server will not have it."""
        self.obstacles += 1
        self._refused[child] = Obstacle(sentence, now + ASK_AGAIN_SECONDS)

    def was_freed(self, child: Child) -> None:
        """Whoever had the name has it no more."""
        self._taken.pop(child, None)

    def is_blocked(self, child: Child, wish: str, now: float) -> bool:
        """Whether writing the child is to wait."""
        quarrel = self._quarrels.get(child)
        wait = quarrel.wait(wish, now) if quarrel else 0.0
        if wait:
            self._waits[child] = now + wait
        return bool(wait) or child in self.taken(now) or child in self.refused(now)

    def repaired(self, child: Child, wish: str, now: float) -> bool:
        """Count it; whether this has just become a quarrel that the user should know of."""
        return self._quarrels.setdefault(child, Quarrel(wish)).repaired(wish, now)

    def status_wait(self, patience: float | None, strain: float, now: float) -> float:
        """Seconds that the status still waits for company; 0: it is to be written now.

        `patience` is what it has while nothing is strained, None where it has none ever.
        """
        if patience is None:
            self._status_due = None
            return 0.0
        if self._status_due is None:
            if strain > 1:
                patience = max(patience, min(_PATIENCE * (strain - 1), LONGEST_PATIENCE_SECONDS))
            self._status_due = now + patience
        if (wait := self._status_due - now) > 0:
            return wait
        self._status_due = None
        return 0.0

    def writes(self, status: Object, notices: tuple[Notice, ...]) -> None:
        """A status is about to be written; these tell of it once it was."""
        self._untold = (status, notices)

    def was_written(self) -> None:
        """It was, and they are told."""
        self._untold = None

    def late(self, resource: Object) -> tuple[Notice, ...]:
        """What a write was to be told by that came through, though its answer did not."""
        if self._untold is None or not covers(resource.get("status"), self._untold[0]):
            return ()
        (_, notices), self._untold = self._untold, None
        return notices

    def due(self, now: float, looked: float) -> float | None:
        """Seconds until something that waits may be tried again: 0 for what began to be possible
        since the resource was `looked` at."""
        self._waits = {child: until for child, until in self._waits.items() if until > looked}
        obstacles = (*self._taken.values(), *self._refused.values())
        standing = [obstacle.until for obstacle in obstacles if obstacle.until > looked]
        untils = (*standing, *self._waits.values(), *filter(None, [self._status_due]))
        return min((max(until - now, 0.0) for until in untils), default=None)

    @staticmethod
    def is_ours(obj: Object, resource: Object) -> bool:
        """Whether the resource controls the object."""
        controller = controller_of(obj)
        return controller is not None and controller["uid"] == resource["metadata"]["uid"]


def strain(took: float, rate: float) -> float:
    """How many times more there is to do than is done without effort; up to 1 it is none.

    `took` are the seconds that a reconcile has taken, `rate` how many there are in a second.
    """
    return max(took / _SLOW_SECONDS, rate / _MANY)


def wish_of(wished: Object) -> str:
    """What tells one wish from another: the hash that it carries, or one of all of it."""
    annotations = (wished.get("metadata") or {}).get("annotations") or {}
    stamp = annotations.get(APPLIED)
    return stamp or hashlib.sha256(json.dumps(wished, sort_keys=True).encode()).hexdigest()


def _standing(obstacles: dict[Child, Obstacle], now: float) -> dict[Child, str]:
    return {child: met.sentence for child, met in obstacles.items() if met.until > now}
