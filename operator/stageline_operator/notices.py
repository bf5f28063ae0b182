"""Every transition of a condition is told by one Event; those of one write share it. Pure.

An Event is a request, and conditions change together: a write of status that brings transitions is
told by one Event, whose note lists them all before it says why. It has the reason and the message
of the most telling one, and is a Warning where one is for the worse. That Ready stays as it is for
another reason is told as well, where something is wrong or it serves; words and numbers are not.
That a link falls back to a slower transport is told too.

A condition that is not there counts as it would begin: nothing is known, and it is on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from stageline_api.status import Condition, PipelineDeploymentStatus
from stageline_operator.conditions import OPERATOR_CONFLICT, is_bad
from stageline_operator.decision import Notice
from stageline_operator.kinds import Object
from stageline_operator.reasons import Reason
from stageline_operator.status import read_status

_BEGINNINGS: Final = {"Reconciling": "True", "Stalled": "False", OPERATOR_CONFLICT: "False"}
_TELLING: Final = (
    ("Ready", "True"), ("Planned", "True"), ("Ready", "False"), ("Ready", "Unknown"),
    ("Stalled", "False"), ("PipelineConnected", "True"), ("ModelLoaded", "True"),
    ("StagesScheduled", "True"), ("RouterReady", "True"),
)  # fmt: skip
"""Where nothing is wrong, the first of these that came about; any other tells less."""


def notices(previous: Object, new: Object) -> tuple[Notice, ...]:
    """What is to be told of the step from one status to another, which is `new`."""
    before, after = (read_status({"status": status}) for status in (previous, new))
    return (*_of_conditions(before.conditions, after.conditions), *_of_links(before, after))


def _of_conditions(before: Iterable[Condition], after: Iterable[Condition]) -> Iterator[Notice]:
    past = {condition.type: condition for condition in before}
    told = [one for one in _with_ends(past, after) if _is_news(past.get(one.type), one)]
    if not told:
        return
    first = min(told, key=_rank)
    parts = (
        _part(one, first, still=not _flipped(past.get(one.type), one))
        for one in sorted(told, key=lambda one: one is not first)
    )
    note = f"{', '.join(parts)}: {first.message or first.reason}"
    yield Notice("Warning" if any(map(_is_wrong, told)) else "Normal", first.reason, note)


def _with_ends(past: Mapping[str, Condition], after: Iterable[Condition]) -> Iterator[Condition]:
    """A conflict of operators is there or is not: that it is gone is a transition too."""
    now = tuple(after)
    yield from now
    gone = past.get(OPERATOR_CONFLICT)
    if gone is not None and all(one.type != OPERATOR_CONFLICT for one in now):
        over = "no second operator wants to serve it any more"
        yield gone.model_copy(update={"status": "False", "message": over})


def _is_wrong(condition: Condition) -> bool:
    ended = condition.type == OPERATOR_CONFLICT and condition.status == "False"
    return is_bad(condition) and not ended


def _of_links(
    before: PipelineDeploymentStatus, after: PipelineDeploymentStatus
) -> Iterator[Notice]:
    """Those that have fallen back share an Event as well."""
    known = {(one.pipeline, one.stage, one.transport_note) for one in before.stages}
    fallen = [
        one
        for one in after.stages
        if one.transport_note and (one.pipeline, one.stage, one.transport_note) not in known
    ]
    if not fallen:
        return
    first, *others = fallen
    more = f" (and {len(others)} links more)" if others else ""
    yield Notice(
        "Warning",
        Reason.LINK_FELL_BACK,
        f"stage {first.stage} of {first.pipeline} sends over {first.transport}: "
        f"{first.transport_note}{more}",
    )


def _is_news(before: Condition | None, now: Condition) -> bool:
    if before is None or now.type != "Ready" or before.status != now.status:
        return _flipped(before, now)
    return before.reason != now.reason and (now.status == "True" or is_bad(now))


def _flipped(before: Condition | None, now: Condition) -> bool:
    begins = _BEGINNINGS.get(now.type, "Unknown")
    return now.status != (begins if before is None else before.status)


def _rank(condition: Condition) -> tuple[int, int, bool]:
    """The worst first; then what is reached. Reconciling repeats what others say."""
    repeats = condition.type == "Reconciling"
    if _is_wrong(condition):
        return 0, Reason(condition.reason).rank, repeats
    is_so = (condition.type, condition.status)
    return 1, _TELLING.index(is_so) if is_so in _TELLING else len(_TELLING), repeats


def _part(one: Condition, first: Condition, *, still: bool) -> str:
    """`Planned False`, and why, where that is not what the Event is about."""
    why = f" ({one.reason})" if _is_wrong(one) and one.reason != first.reason else ""
    return f"{one.type} {'still ' if still else ''}{one.status}{why}"
