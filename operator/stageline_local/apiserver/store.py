"""What the server holds: objects, one counter for all of them, and the history of changes.

Not thread-safe for writers: the server writes from its own loop alone. Stored objects are never
changed in place, so anyone may read them at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from stageline_local.apiserver.errors import expired
from stageline_local.apiserver.kinds import Kind, Object

Key = tuple[str, str]
"""Namespace (empty for what has none) and name."""
Place = tuple[str, str]
"""Group and plural."""

_HISTORY: Final = 10_000  # changes that a watch may be late by


class Change(NamedTuple):
    """One write. `before` is None for what was added; a deleted object is its last state."""

    version: int
    place: Place
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Object
    before: Object | None


class Store:
    """The objects of all kinds."""

    def __init__(self) -> None:
        self.version = 0
        self.oldest = 0
        """Changes up to this resource version are forgotten."""
        self._objects: dict[Place, dict[Key, Object]] = {}
        self._history: deque[Change] = deque()
        self._listeners: set[Callable[[Change], None]] = set()

    def get(self, kind: Kind, key: Key) -> Object | None:
        """The object, or None."""
        return self._objects.get(kind.store, {}).get(key)

    def all(self, kind: Kind, namespace: str = "") -> list[Object]:
        """The objects of a kind, of one namespace or of all, in the order of their names."""
        objects = self._objects.get(kind.store, {})
        keys = [key for key in list(objects) if not namespace or key[0] == namespace]
        return [objects[key] for key in sorted(keys) if key in objects]

    def put(self, kind: Kind, key: Key, obj: Object) -> Object:
        """Store an object; gives it as stored, with its new resource version."""
        objects = self._objects.setdefault(kind.store, {})
        before = objects.get(key)
        stored = self._stamped(obj)
        objects[key] = stored
        self._tell(kind, "MODIFIED" if before else "ADDED", stored, before)
        return stored

    def remove(self, kind: Kind, key: Key, last: Object) -> Object:
        """Forget an object; gives its last state, with the resource version of its end."""
        before = self._objects[kind.store].pop(key)
        gone = self._stamped(last)
        self._tell(kind, "DELETED", gone, before)
        return gone

    def since(self, version: int) -> Iterator[Change]:
        """The changes after `version`, oldest first. Refusal (410) when they are forgotten."""
        if version < self.oldest:
            raise expired(version, self.oldest + 1)
        return (change for change in list(self._history) if change.version > version)

    def listen(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call `listener` at every change from now on; what this gives ends it."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def compact(self) -> None:
        """Forget the history, as etcd does every five minutes."""
        self._history.clear()
        self.oldest = self.version

    def _stamped(self, obj: Object) -> Object:
        self.version += 1
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}

    def _tell(
        self,
        kind: Kind,
        what: Literal["ADDED", "MODIFIED", "DELETED"],
        obj: Object,
        before: Object | None,
    ) -> None:
        change = Change(self.version, kind.store, what, obj, before)
        self._history.append(change)
        if len(self._history) > _HISTORY:
            self.oldest = self._history.popleft().version
        for listener in list(self._listeners):
            listener(change)
