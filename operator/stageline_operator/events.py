"""A Kubernetes Event about a resource, as events.k8s.io/v1 wants it: pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from stageline_operator.decision import Notice
from stageline_operator.kinds import EVENT, Object

CONTROLLER: Final = "stageline"
_LONGEST_NOTE: Final = 1024
"""In bytes; the API server refuses an Event with a longer one."""
_LONGEST_NAME: Final = 200


def event(resource: Object, notice: Notice, now: datetime, instance: str, unique: str) -> Object:
    """The Event; `instance` is who reports it, `unique` what no other Event's name ends in."""
    metadata = resource["metadata"]
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {
            "name": f"{metadata['name'][:_LONGEST_NAME]}.{unique}",
            "namespace": metadata["namespace"],
        },
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": notice.type,
        "reason": notice.reason,
        "action": notice.action,
        "note": _cut(notice.note),
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }


def _cut(note: str) -> str:
    if len(note.encode()) <= _LONGEST_NOTE:
        return note
    return note.encode()[: _LONGEST_NOTE - len("…".encode())].decode(errors="ignore") + "…"
