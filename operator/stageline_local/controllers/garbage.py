"""Which objects nobody owns any more: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from stageline_local.client import Object

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"


@dataclass(frozen=True, slots=True)
class Owner:
    """What an ownerReference says."""

    api_version: str
    kind: str
    namespace: str
    """The child's own; an owner that is in no namespace is found all the same."""
    name: str
    uid: str


def owners(obj: Object) -> tuple[Owner, ...]:
    """The owners of an object."""
    metadata = obj["metadata"]
    return tuple(
        Owner(r["apiVersion"], r["kind"], metadata.get("namespace", ""), r["name"], r["uid"])
        for r in metadata.get("ownerReferences") or ()
    )


def is_garbage(obj: Object, exists: Callable[[Owner], bool]) -> bool:
    """It had owners, and none of them is left."""
    mine = owners(obj)
    return bool(mine) and not any(map(exists, mine))


def suspects(obj: Object, known: Mapping[str, object]) -> tuple[Owner, ...]:
    """Owners to ask for, of an object all of whose owners look dead; none if one is known."""
    mine = owners(obj)
    return () if any(owner.uid in known for owner in mine) else mine


def children(uid: str, objects: Iterable[Object]) -> list[Object]:
    """The objects that name this owner."""
    return [obj for obj in objects if any(owner.uid == uid for owner in owners(obj))]


def waits_for_children(obj: Object) -> str:
    """The finalizer with which an object that is being deleted waits for this collector, or ''."""
    if not obj["metadata"].get("deletionTimestamp"):
        return ""
    finalizers = obj["metadata"].get("finalizers") or ()
    return next((name for name in (FOREGROUND, ORPHAN) if name in finalizers), "")


def without_finalizer(obj: Object, name: str) -> list[str]:
    """The finalizers that stay."""
    return [other for other in obj["metadata"].get("finalizers") or () if other != name]
