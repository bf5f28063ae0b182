"""Which fields of a child are the operator's, in its metadata.managedFields. Pure.

A child is made by POST, which costs the API server much less than a server-side apply. Its fields
are then the operator's by Update, and an apply would not take out what only an earlier wish has
said. So they become its by Apply before the first: kubectl does the same with what it applied as a
client (client-go's csaupgrade).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from stageline_operator.kinds import Object
from stageline_operator.labels import FIELD_MANAGER

_UPDATE: Final = "Update"
_APPLY: Final = "Apply"


def is_posted(obj: Object) -> bool:
    """Whether fields of it are the operator's by another way than server-side apply."""
    return any(map(_is_posted, obj["metadata"].get("managedFields") or ()))


def as_applied(entries: Iterable[Object]) -> list[Object]:
    """The entries of managedFields, with all that is the operator's by Apply."""
    entries = list(entries)
    mine = [entry for entry in entries if _is_mine(entry)]
    others = [entry for entry in entries if not _is_mine(entry)]
    if not mine:
        return others
    fields: Object = {}
    for entry in mine:
        fields = _union(fields, entry["fieldsV1"])
    return [{**mine[-1], "operation": _APPLY, "fieldsV1": fields}, *others]


def _is_posted(entry: Object) -> bool:
    return _is_mine(entry) and entry.get("operation") == _UPDATE


def _is_mine(entry: Object) -> bool:
    return entry.get("manager") == FIELD_MANAGER and not entry.get("subresource")


def _union(one: Any, other: Any) -> Object:
    shared = {name: _union(one[name], other[name]) for name in one.keys() & other.keys()}
    return {**one, **other, **shared}
