"""Models are read once for all that ask for the same at that time. Pure: times are passed in.

What the pod of one resource reads is true for another when the pod was made after that one was
seen: then it tells of the model as it was since, and a branch of the hub that was moved before the
manifest was applied is never missed. While such a pod still reads, the others of its namespace wait
for it, but not for long: it may be one that cannot start, and each has its own to tell why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from stageline_api.profile import ModelProfile
from stageline_operator.cache import Key
from stageline_operator.decision import Reading
from stageline_operator.kinds import Object
from stageline_operator.observed import SharedProfile

PATIENCE_SECONDS: Final = 10.0
"""That a resource waits in all for pods of others."""
_KEPT_SECONDS: Final = 60.0
"""That a profile is kept: a resource that is looked at for the first time later takes its own."""


class _Asked(NamedTuple):
    """When the operator first saw that a resource asks for this."""

    uid: str
    generation: int
    at: float


class _Wait(NamedTuple):
    """For the pod of another resource."""

    subject: str
    since: float


class _Taken(NamedTuple):
    profile: ModelProfile
    since: float
    """When the pod was made that read it."""


@dataclass(slots=True)
class _Model:
    """One that is read, as resources of one namespace read it."""

    begun: float
    """When the newest pod was made."""
    taken: _Taken | None = None


class Profiles:
    """What the pods of all resources read, and who waits for it."""

    def __init__(self, wake: Callable[[Key], None]) -> None:
        self._wake = wake
        self._models: dict[str, dict[str, _Model]] = {}
        """By namespace and subject."""
        self._asked: dict[Key, _Asked] = {}
        self._begun: dict[tuple[Key, str], float] = {}
        self._waiting: dict[Key, _Wait] = {}

    def asked(self, key: Key, resource: Object, now: float) -> None:
        """A resource is there, perhaps with another spec."""
        metadata = resource["metadata"]
        uid, generation = metadata["uid"], metadata.get("generation", 0)
        if (before := self._asked.get(key)) is None or before[:2] != (uid, generation):
            self._asked[key] = _Asked(uid, generation, now)
            self._waiting.pop(key, None)

    def of(self, key: Key, now: float) -> dict[str, SharedProfile]:
        """What is true for a resource, or will be, by subject."""
        if (asked := self._asked.get(key)) is None:
            return {}
        waiting = self._waiting.get(key)
        wait = PATIENCE_SECONDS - (now - waiting.since if waiting else 0.0)
        shared = {}
        for subject, model in self._models.get(key.namespace, {}).items():
            if model.taken is not None and model.taken.since > asked.at:
                shared[subject] = SharedProfile(model.taken.profile)
            elif model.begun > asked.at and wait > 0:
                shared[subject] = SharedProfile(None, wait)
        return shared

    def decided(self, key: Key, reading: Reading | None, now: float) -> None:
        """A decision about a resource: it reads a model, has read it, or waits for that."""
        if reading is None:
            self._waiting.pop(key, None)
        elif reading.profile is not None:
            self._ends(key, reading.subject, reading.profile)
        elif reading.own:
            self._begins(key, reading.subject, now)
        else:
            self._waiting.setdefault(key, _Wait(reading.subject, now))

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._asked.pop(key, None)
        self._waiting.pop(key, None)

    def _begins(self, key: Key, subject: str, now: float) -> None:
        self._waiting.pop(key, None)
        self._drop(now - _KEPT_SECONDS)
        self._begun[key, subject] = now
        model = self._models.setdefault(key.namespace, {}).setdefault(subject, _Model(now))
        model.begun = now

    def _ends(self, key: Key, subject: str, profile: ModelProfile) -> None:
        since = self._begun.pop((key, subject), None)
        model = self._models.get(key.namespace, {}).get(subject)
        if since is None or model is None:
            return
        if model.taken is None or model.taken.since < since:
            model.taken = _Taken(profile, since)
        for other, wait in self._waiting.items():
            if (other.namespace, wait.subject) == (key.namespace, subject):
                self._wake(other)

    def _drop(self, before: float) -> None:
        for models in self._models.values():
            for subject in [subject for subject, model in models.items() if model.begun < before]:
                del models[subject]
        self._begun = {who: at for who, at in self._begun.items() if at >= before}
