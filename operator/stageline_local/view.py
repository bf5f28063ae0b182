"""What to show of a running manifest: reports and observations in, rows out. Pure.

A worker's report tells how its stage is. Where there is no worker to tell, the runtime does.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from stageline.v1 import pipeline_pb2
from stageline_local.layout import Layout, Pipeline
from stageline_local.process import Observation, Phase

HOPELESS_STARTS = 3
_STAGE_STATES = {
    pipeline_pb2.STARTING: "starting",
    pipeline_pb2.LOADING: "loading",
    pipeline_pb2.LOADED: "loaded",
    pipeline_pb2.SERVING: "serving",
    pipeline_pb2.DRAINING: "draining",
    pipeline_pb2.FAILED: "failed",
}
_PIPELINE_STATES = {
    pipeline_pb2.WAITING: "waiting",
    pipeline_pb2.CONNECTING: "connecting",
    pipeline_pb2.READY: "ready",
    pipeline_pb2.PIPELINE_DRAINING: "draining",
}
_HAS_LOADED = (pipeline_pb2.LOADED, pipeline_pb2.SERVING, pipeline_pb2.DRAINING)


@dataclass(frozen=True, slots=True)
class Row:
    """One process of the table; a router has no stage and no layers."""

    process: str
    pipeline: str
    stage: str
    layers: str
    state: str
    restarts: int = 0
    loaded_bytes: int = 0
    total_bytes: int = 0
    microbatches: int = 0
    compute_seconds: float = 0.0
    hop_seconds: float = 0.0
    transport: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class PipelineLine:
    """A pipeline as a whole."""

    name: str
    state: str
    message: str


@dataclass(frozen=True, slots=True)
class View:
    """Everything that is shown at one moment."""

    rows: tuple[Row, ...]
    pipelines: tuple[PipelineLine, ...]
    ready: bool
    """A request would be answered: a pipeline is ready and the router says so."""
    info: Any = None
    """ModelInfo of a pipeline, None before the first is known."""


def view(
    layout: Layout,
    reports: Mapping[str, Any],
    seen: Mapping[str, Observation],
    proven: Set[str],
    *,
    router_ready: bool,
) -> View:
    """The moment that these reports (by pipeline) and observations (by process) describe.

    `proven` names the processes that have been up at some time.
    """
    rows = [row for pipeline in layout.pipelines for row in _rows(pipeline, reports, seen, proven)]
    rows.append(_router_row(layout, seen, proven, router_ready=router_ready))
    lines = tuple(_line(pipeline, reports, seen) for pipeline in layout.pipelines)
    infos = (report.info for report in reports.values() if report and report.HasField("info"))
    return View(
        rows=tuple(rows),
        pipelines=lines,
        ready=router_ready and any(line.state == "ready" for line in lines),
        info=next(infos, None),
    )


def loaded_processes(layout: Layout, reports: Mapping[str, Any]) -> set[str]:
    """Names of the processes whose stage is in memory."""
    return {
        pipeline.process(worker.stage)
        for pipeline in layout.pipelines
        for worker in _workers(reports.get(pipeline.name)).values()
        if worker.state in _HAS_LOADED
    }


def hopeless(seen: Mapping[str, Observation], proven: Set[str]) -> str | None:
    """Why there is no use in going on: a process keeps dying that has never once been up.

    What has been up (`proven`) is started again for ever: its cause came later, and may go away.
    """
    for name, process in seen.items():
        if process.restarts >= HOPELESS_STARTS and name not in proven:
            return f"{name} died {process.restarts} times before it was up: {process.error}"
    return None


def _rows(
    pipeline: Pipeline,
    reports: Mapping[str, Any],
    seen: Mapping[str, Observation],
    proven: Set[str],
) -> list[Row]:
    report = reports.get(pipeline.name)
    workers = _workers(report)
    rows = []
    for document in pipeline.stages:
        name = pipeline.process(document.stage)
        first, end = document.layers
        process = seen.get(name, Observation(name, Phase.ENDED))
        worker = workers.get(document.stage)
        row = Row(
            process=name,
            pipeline=pipeline.name,
            stage=str(document.stage),
            layers=f"{first}-{end - 1}",
            state=_unreported(
                process, unheard=report is None and document.stage > 0 and name in proven
            ),
            restarts=process.restarts,
            message=_last_words(process, proven),
        )
        rows.append(_reported(row, worker) if worker and process.phase is Phase.RUNNING else row)
    return rows


def _reported(row: Row, worker: Any) -> Row:
    # The reason of the last death stays in sight until its successor is up.
    up = worker.state in _HAS_LOADED
    return Row(
        process=row.process,
        pipeline=row.pipeline,
        stage=row.stage,
        layers=row.layers,
        state=_STAGE_STATES.get(worker.state, "starting"),
        restarts=row.restarts,
        loaded_bytes=worker.loaded_bytes,
        total_bytes=worker.total_bytes,
        microbatches=worker.microbatches,
        compute_seconds=worker.compute_seconds,
        hop_seconds=worker.hop_seconds,
        transport=worker.transport,
        message=worker.error or ("" if up else row.message),
    )


def _router_row(
    layout: Layout, seen: Mapping[str, Observation], proven: Set[str], *, router_ready: bool
) -> Row:
    name = layout.router_process
    process = seen.get(name, Observation(name, Phase.ENDED))
    state = _unreported(process, unheard=False)
    if process.phase is Phase.RUNNING and (router_ready or name in proven):
        state = "ready" if router_ready else "waiting"
    message = "" if state == "ready" else _last_words(process, proven)
    return Row(name, "", "router", "", state, process.restarts, message=message)


def _last_words(process: Observation, proven: Set[str]) -> str:
    """Why it died last; an end in order of what was up has no such reason."""
    ending = process.phase in (Phase.STOPPING, Phase.ENDED)
    return "" if ending and process.name in proven else process.error


def _unreported(process: Observation, *, unheard: bool) -> str:
    """Without a report. A stage that was up may well be, while its leader comes back."""
    match process.phase:
        case Phase.RUNNING:
            return "unknown" if unheard else "starting"
        case Phase.WAITING:
            return "restarting" if process.restarts else "starting"
        case Phase.STOPPING:
            return "stopping"
        case Phase.ENDED:
            return "stopped"


def _line(
    pipeline: Pipeline, reports: Mapping[str, Any], seen: Mapping[str, Observation]
) -> PipelineLine:
    leader, report = seen.get(pipeline.process(0)), reports.get(pipeline.name)
    if leader and leader.phase is Phase.ENDED:
        return PipelineLine(pipeline.name, "stopped", "")
    if report is None:
        return PipelineLine(pipeline.name, "waiting", "for its leader, stage 0")
    state = _PIPELINE_STATES.get(report.state, "waiting")
    return PipelineLine(pipeline.name, state, report.message)


def _workers(report: Any) -> dict[int, Any]:
    return {worker.stage: worker for worker in report.stages} if report else {}
