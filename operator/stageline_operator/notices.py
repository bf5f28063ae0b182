"""One Event for each transition that somebody would want to be told of. Pure.

Each Event is a request, and a start passes a dozen transitions within seconds: those of the parts
on their way to what Ready says in the end are left to the conditions. What is told: that Ready
begins or ends, or is so for another reason; a plan or its refusal; that it stalls or goes on; and
whatever goes wrong, once for each reason.
"""

from __future__ import annotations

from stageline_api.status import UNSEEN, Condition
from stageline_operator.conditions import is_bad
from stageline_operator.decision import Notice
from stageline_operator.kinds import Object
from stageline_operator.status import read_status


def notices(previous: Object, new: Object) -> tuple[Notice, ...]:
    """What is to be told of the step from one status to another; nothing of words or numbers."""
    before = {condition.type: condition for condition in _conditions(previous)}
    told: dict[str, Notice] = {}
    for condition in _conditions(new):
        if _is_news(before.get(condition.type), condition, is_new=previous == UNSEEN):
            told.setdefault(condition.reason, _notice(condition))
    return tuple(told.values())


def _is_news(before: Condition | None, now: Condition, *, is_new: bool) -> bool:
    """`is_new`: it never had a status of ours. (One that is lost is written again in silence.)"""
    if before is None:
        begins = is_new and now.type in ("Ready", "Planned") and now.status == "True"
        return begins or is_bad(now)
    if (before.status, before.reason) == (now.status, now.reason):
        return False
    flipped = before.status != now.status
    match now.type:
        case "Ready":
            return "True" in (before.status, now.status) or is_bad(now)
        case "Planned" | "Stalled":
            return flipped
        case _:
            return flipped and is_bad(now)


def _notice(condition: Condition) -> Notice:
    return Notice(
        type="Warning" if is_bad(condition) else "Normal",
        reason=condition.reason,
        note=condition.message or condition.reason,
    )


def _conditions(status: Object) -> tuple[Condition, ...]:
    return read_status({"status": status}).conditions
