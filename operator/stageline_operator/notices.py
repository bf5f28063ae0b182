"""One Event for each transition: of a condition, or of why the resource is (not) ready. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stageline_operator.decision import Notice
from stageline_operator.kinds import Object
from stageline_operator.reasons import Reason


def notices(previous: Object, new: Object) -> tuple[Notice, ...]:
    """What became different between two statuses; nothing when only words or numbers did.

    Several conditions that change for one reason are one Event: the first of them tells it.
    """
    before = {condition["type"]: condition for condition in _conditions(previous)}
    told: dict[str, Notice] = {}
    for condition in _conditions(new):
        if _is_news(before.get(condition["type"]), condition):
            told.setdefault(condition["reason"], _notice(condition))
    return tuple(told.values())


def _is_news(before: dict[str, Any] | None, condition: dict[str, Any]) -> bool:
    if before is None:
        return bool(condition["type"] == "Ready")
    if condition["type"] == "Ready" and before["reason"] != condition["reason"]:
        return True
    return bool(before["status"] != condition["status"])


def _notice(condition: dict[str, Any]) -> Notice:
    reason = condition["reason"]
    return Notice(
        type="Warning" if _is_bad(condition) else "Normal",
        reason=reason,
        note=condition.get("message") or reason,
    )


def _is_bad(condition: dict[str, Any]) -> bool:
    """Something went wrong, as opposed to not being done yet."""
    reason = next((one for one in Reason if one == condition["reason"]), None)
    if condition["type"] == "Stalled" and condition["status"] == "True":
        return True
    return reason is not None and (reason.hard or reason is Reason.ROLLOUT_BLOCKED)


def _conditions(status: Object) -> Iterator[dict[str, Any]]:
    yield from status.get("conditions") or ()
