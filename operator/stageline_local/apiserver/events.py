"""Events have two faces: that of the core group, which is stored, and that of events.k8s.io."""

from __future__ import annotations

from typing import Final

from stageline_local.apiserver.kinds import Kind, Object

_NAMES: Final = {  # events.k8s.io: core
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_BACK: Final = {core: new for new, core in _NAMES.items()}
GROUP: Final = "events.k8s.io"


def stored(kind: Kind, obj: Object) -> Object:
    """An object as it is kept."""
    return _renamed(obj, _NAMES, "v1") if kind.group == GROUP else obj


def served(kind: Kind, obj: Object) -> Object:
    """A kept object as clients of `kind` see it."""
    if kind.plural != "events":
        return obj
    obj = {"source": {}, "firstTimestamp": None, "lastTimestamp": None, **obj}
    return _renamed(obj, _BACK, f"{GROUP}/v1") if kind.group == GROUP else obj


def _renamed(obj: Object, names: dict[str, str], api_version: str) -> Object:
    renamed = {names.get(key, key): value for key, value in obj.items()}
    return {**renamed, "apiVersion": api_version}
