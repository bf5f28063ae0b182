"""A PipelineDeployment as people read it: headline, what is wrong, plan, stages, events. Pure.

Objects are JSON as an API server gives them. Fields that are not there are left blank: the object
may be a second old, or its operator of another version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from stageline_api.quantity import format_bytes

Object = dict[str, Any]
Cells = tuple[str, ...]

HEADINGS = ("NAME", "READY", "STAGES", "PIPELINES", "UPDATED", "REASON", "AGE")
STAGE_HEADINGS = (
    "pipeline", "stage", "layers", "state", "loaded", "loads", "compute", "hop", "transport", "pod",
    "node", "restarts", "message",
)  # fmt: skip
_RIGHT = frozenset({"stage", "loaded", "loads", "compute", "hop", "restarts"})
_BAD_WHEN_TRUE = frozenset({"Reconciling", "Stalled", "OperatorConflict"})
_PROGRESS = re.compile(r"(: )?[\d.]+( \w+)? of [\d.]+ \w+")
_MORE = re.compile(r" \(and \d+ more\)$")
_EVENTS = 8
_PARTITION = 16


def summary(resource: Object, events: Sequence[Object], now: datetime) -> str:
    """All that there is to say of one resource, as a text of some lines."""
    parts = [
        "\n".join(headlines([resource], now)),
        "\n".join(troubles(resource)),
        plan_line(resource),
        "\n".join(table(STAGE_HEADINGS, stage_rows(resource))) if stages(resource) else "",
        "\n".join(event_lines(events, now)),
    ]
    return "\n\n".join(filter(None, parts))


def headlines(resources: Iterable[Object], now: datetime) -> list[str]:
    """What `kubectl get pld` says of them."""
    return table(HEADINGS, [_headline(resource, now) for resource in resources], gap=3)


def troubles(resource: Object) -> list[str]:
    """The conditions that are not as they should be, a line each; equal causes are told once."""
    worst = _MORE.sub("", condition(resource, "Ready").get("message", ""))
    told: dict[tuple[str, str], list[str]] = {}
    for entry in conditions(resource):
        if entry["status"] != _wanted(entry["type"]):
            message = entry.get("message", "").removesuffix(f"; {worst}")
            cause = (entry.get("reason", ""), message)
            told.setdefault(cause, []).append(f"{entry['type']} {entry['status']}")
    lines = [_because(", ".join(kinds), *cause) for cause, kinds in told.items()]
    if _is_behind(resource):
        lines.append("the operator has not seen the newest spec yet: is it running?")
    return lines


def condition_line(entry: Object) -> str:
    """One condition: `Ready False StageLoading: stage 1 ...`."""
    what = f"{entry['type']} {entry['status']}"
    return _because(what, entry.get("reason", ""), entry.get("message", ""))


def plan_line(resource: Object) -> str:
    """How the model is cut; empty while there is no plan."""
    plan = _status(resource).get("plan")
    if not plan:
        return ""
    partition = plan.get("partition") or []
    dealt = " + ".join(map(str, partition)) if len(partition) <= _PARTITION else str(sum(partition))
    memory = (
        "every stage fits the memory that its pod offers"
        if plan.get("memoryChecked")
        else "memory was not checked"
    )
    of = f" of revision {plan['revision']}" if plan.get("revision") else ""
    return f"plan{of}: {dealt} layers in {len(partition)} stages; {memory}"


def stages(resource: Object) -> list[Object]:
    """Every stage that the status tells of."""
    return list(_status(resource).get("stages") or ())


def stage_rows(resource: Object) -> list[Cells]:
    """The cells of each stage, in the order of STAGE_HEADINGS."""
    return [
        (
            stage.get("pipeline", ""),
            str(stage.get("stage", "")),
            stage.get("layers", ""),
            stage.get("state", ""),
            loaded(stage),
            str(stage.get("loads") or ""),
            _milliseconds(stage.get("computeMilliseconds", "")),
            _milliseconds(stage.get("hopMilliseconds", "")),
            stage.get("transport", ""),
            stage.get("pod", ""),
            stage.get("node", ""),
            str(stage.get("restarts", 0)),
            _said(stage),
        )
        for stage in stages(resource)
    ]


def loaded(stage: Object) -> str:
    """Bytes in memory, of how many while they are not all there."""
    have, total = stage.get("bytesLoaded", 0), stage.get("bytesTotal", 0)
    if not total:
        return ""
    whole = format_bytes(total)
    return whole if have == total else f"{format_bytes(have)} of {whole}"


def event_lines(events: Sequence[Object], now: datetime) -> list[str]:
    """The newest events (events.k8s.io/v1), the oldest of them first."""
    newest = sorted(events, key=_when)[-_EVENTS:]
    rows = [
        (
            f"{age(now, _when(event))} ago",
            event.get("type", ""),
            event.get("reason", ""),
            " ".join(event.get("note", "").split()),
        )
        for event in newest
    ]
    return table(("event", "type", "reason", "note"), rows) if rows else []


class News(NamedTuple):
    """A line about one condition or stage, which replaces an older one with the same key."""

    key: str
    line: str
    essence: str
    """The line is worth printing again only when this has changed."""


def news(resource: Object) -> Iterator[News]:
    """A line for each condition that is known, and for each stage.

    What is wrong stands in Ready, and changes with it; of the other conditions the status does.
    """
    for entry in conditions(resource):
        line = condition_line(entry)
        if entry["type"] == "Ready":
            yield News("Ready", line, _PROGRESS.sub("", line))
        elif entry["status"] != "Unknown":
            yield News(entry["type"], line, entry["status"])
    for stage in stages(resource):
        line = _stage_line(stage)
        key = f"{stage.get('pipeline')} {stage.get('stage')}"
        yield News(key, line, _PROGRESS.sub("", line))


def conditions(resource: Object) -> list[Object]:
    """Of the status, in its order."""
    return list(_status(resource).get("conditions") or ())


def condition(resource: Object, kind: str) -> Object:
    """One condition; without status while the operator has not set it."""
    found = (entry for entry in conditions(resource) if entry["type"] == kind)
    return next(found, {"type": kind})


def is_ready(resource: Object) -> bool:
    """It is served; where its spec is newer than what is served, the old one is."""
    return condition(resource, "Ready").get("status") == "True"


def age(now: datetime, then: datetime) -> str:
    """As kubectl says it: 59s, 3m20s, 45m, 5h10m, 20h, 3d4h, 40d."""
    seconds = max(0, int((now - then).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if hours < 3:
        return _two(minutes, "m", seconds % 60, "s", below=10)
    if hours < 48:
        return _two(hours, "h", minutes % 60, "m", below=8)
    return _two(days, "d", hours % 24, "h", below=8)


def table(headings: Cells, rows: Sequence[Cells], gap: int = 2) -> list[str]:
    """Lines of columns; a column in which nobody has anything is left out."""
    full = [column for column in range(len(headings)) if any(row[column] for row in rows)]
    lines = [headings, *rows]
    widths = {column: max(len(line[column]) for line in lines) for column in full}
    return [
        (" " * gap).join(_cell(line[column], headings[column], widths[column]) for column in full)
        .rstrip()
        for line in lines
    ]  # fmt: skip


def _said(stage: Object) -> str:
    """What is wrong with a stage, and why its link is slower than it could be."""
    return "; ".join(filter(None, (stage.get("message"), stage.get("transportNote"))))


def _stage_line(stage: Object) -> str:
    state, restarts = stage.get("state", ""), stage.get("restarts", 0)
    facts = (
        f"{stage.get('pipeline')} stage {stage.get('stage')}",
        f"layers {stage['layers']}" if stage.get("layers") else "",
        state,
        loaded(stage) if state not in ("Pending", "Starting", "Loading") else "",
        stage.get("transport", ""),
        f"restarts {restarts}" if restarts else "",
        _said(stage),
    )
    return "  ".join(filter(None, facts))


def _headline(resource: Object, now: datetime) -> Cells:
    status, ready = _status(resource), condition(resource, "Ready")
    wanted = (resource.get("spec") or {}).get("replicas", 1)
    return (
        resource["metadata"]["name"],
        ready.get("status", "Unknown"),
        str(status.get("stageCount", "")),
        status.get("pipelines") or f"{status.get('readyReplicas', 0)}/{wanted}",
        str(status.get("updatedReplicas", 0)),
        ready.get("reason", ""),
        age(now, _time(resource["metadata"].get("creationTimestamp", ""), now)),
    )


def _because(what: str, reason: str, message: str) -> str:
    return f"{what} {reason}".rstrip() + (f": {message}" if message else "")


def _wanted(kind: str) -> str:
    return "False" if kind in _BAD_WHEN_TRUE else "True"


def _is_behind(resource: Object) -> bool:
    newest = resource["metadata"].get("generation", 0)
    return bool(_status(resource).get("observedGeneration", 0) != newest)


def _status(resource: Object) -> Object:
    return resource.get("status") or {}


def _milliseconds(text: str) -> str:
    return f"{text} ms" if text else ""


def _when(event: Object) -> datetime:
    last = (event.get("series") or {}).get("lastObservedTime")
    times = (last, event.get("deprecatedLastTimestamp"), event.get("eventTime"))
    stamp = next(filter(None, times), event["metadata"].get("creationTimestamp", ""))
    return _time(stamp, datetime.fromtimestamp(0, UTC))


def _time(stamp: str, otherwise: datetime) -> datetime:
    try:
        return datetime.fromisoformat(stamp)
    except ValueError:
        return otherwise


def _two(large: int, large_unit: str, small: int, small_unit: str, *, below: int) -> str:
    """A second figure as long as the first is small."""
    return f"{large}{large_unit}" + (f"{small}{small_unit}" if small and large < below else "")


def _cell(text: str, heading: str, width: int) -> str:
    return text.rjust(width) if heading in _RIGHT else text.ljust(width)
