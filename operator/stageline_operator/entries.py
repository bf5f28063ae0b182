"""What status says of each stage, with measured numbers that move in steps. Pure.

What is shown of a number depends on what was shown before: a write that nobody would notice costs
as much as one that matters, and a resource at work would never come to rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from stageline_api.status import MAX_NOTE, MAX_STAGE_ENTRIES, StageStatus
from stageline_operator.healing import Replaced
from stageline_operator.messages import clean, joined
from stageline_operator.observed import PodKey, StageReport
from stageline_operator.situation import Pipeline, Stage
from stageline_operator.times import rfc3339

BYTES_STEP: Final = 0.05
"""Part of its bytes that a stage must have loaded more, until status says so."""
TIME_STEP: Final = 0.25
"""Part by which a time must differ from the one that is shown."""

EntryKey = tuple[str, int]
"""Name of the pipeline, and number of the stage."""


def stage_entries(
    pipelines: Iterable[Pipeline],
    before: Mapping[EntryKey, StageStatus],
    history: Mapping[PodKey, Replaced],
) -> dict[PodKey, StageStatus]:
    """The entry of every stage, by key."""
    return {
        stage.key: _entry(
            pipeline.name, stage, before.get((pipeline.name, stage.key.stage)), history
        )
        for pipeline in pipelines
        for stage in pipeline.stages
    }


def bounded(entries: Mapping[PodKey, StageStatus]) -> tuple[StageStatus, ...]:
    """As many as status may have: where there are more, those in trouble, then those that moved."""
    order = sorted(entries)
    if len(order) > MAX_STAGE_ENTRIES:
        order = sorted(order, key=lambda key: _calm(entries[key]))[:MAX_STAGE_ENTRIES]
    return tuple(entries[key] for key in sorted(order))


def _calm(entry: StageStatus) -> tuple[bool, bool, bool]:
    """False sorts first: an entry with a history keeps it only if it is written."""
    return entry.replacements == 0, not entry.message, entry.state in ("Loaded", "Serving")


def _entry(
    pipeline: str, stage: Stage, before: StageStatus | None, history: Mapping[PodKey, Replaced]
) -> StageStatus:
    report, truth = stage.heard, stage.truth
    past = history.get(stage.key)
    return StageStatus(
        pipeline=pipeline,
        stage=stage.key.stage,
        state=stage.state,
        layers=_layers(stage),
        bytes_loaded=shown_bytes(report, before),
        bytes_total=report.total_bytes if report else 0,
        pod=stage.pod_name if stage.pod is not None else "",
        node=truth.node if truth else "",
        transport=report.transport if report else "",
        transport_note=clean(report.transport_note, MAX_NOTE) if report else "",
        compute_milliseconds=shown_time(
            report.compute_seconds if report else 0, before.compute_milliseconds if before else ""
        ),
        hop_milliseconds=shown_time(
            report.hop_seconds if report else 0, before.hop_milliseconds if before else ""
        ),
        loads=report.loads if report else 0,
        restarts=truth.restarts if truth else 0,
        replacements=past.times if past else 0,
        last_replaced=rfc3339(past.last) if past else None,
        message=_message(stage),
    )


def shown_bytes(report: StageReport | None, before: StageStatus | None) -> int:
    """Loaded bytes, or those that are shown already if that is about the same."""
    if report is None:
        return 0
    loaded, total = report.loaded_bytes, report.total_bytes
    shown = before.bytes_loaded if before is not None and before.bytes_total == total else 0
    moved = loaded < shown or loaded >= total or loaded - shown >= total * BYTES_STEP
    return loaded if moved else shown


def shown_time(seconds: float, before: str) -> str:
    """Milliseconds with two significant digits, or the text before if that is about the same."""
    if not (math.isfinite(seconds) and seconds > 0):
        return ""
    milliseconds = seconds * 1000
    old = float(before) if before else 0.0
    if old and abs(milliseconds - old) <= TIME_STEP * old:
        return before
    return format(Decimal(f"{milliseconds:.1e}"), "f")


def _layers(stage: Stage) -> str:
    seen = stage.heard if stage.heard is not None and stage.heard.end_layer else stage.planned
    return f"{seen.first_layer}-{seen.end_layer - 1}" if seen is not None else ""


def _message(stage: Stage) -> str:
    truth = stage.truth
    if truth is not None and truth.reason:
        return clean(joined(truth.reason, truth.message))
    return clean(stage.heard.error) if stage.heard is not None else ""
