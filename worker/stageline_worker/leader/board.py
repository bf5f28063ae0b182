"""The pipeline's report, and who watches it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from stageline.v1 import pipeline_pb2 as pb
from stageline_api.documents import StageDocument
from stageline_worker.leader.desk import Load
from stageline_worker.microbatch import ModelInfo, TensorSpec
from stageline_worker.ring.sessions import Phase, Sessions
from stageline_worker.timing import Timing

_GAP = 0.1
_STATES = {
    Phase.WAITING: pb.WAITING,
    Phase.CONNECTING: pb.CONNECTING,
    Phase.READY: pb.READY,
    Phase.DRAINING: pb.PIPELINE_DRAINING,
}


class Board:
    """Published by the coordinator, on change and at most ten times a second; read by watchers."""

    def __init__(self, document: StageDocument, timing: Timing) -> None:
        self._beat = timing.beat
        self._changed = threading.Condition()
        self._stages: dict[int, pb.WorkerReport] = {}
        self._report = pb.PipelineReport(
            model=document.model,
            pipeline=document.pipeline,
            revision=document.revision,
            state=pb.WAITING,
            sequence_slots=document.max_sequences,
        )
        self._version = 0
        self._published = 0.0
        self._closed = False

    def model(self, info: ModelInfo) -> None:
        with self._changed:
            self._report.info.CopyFrom(_info(info))

    def stage(self, report: pb.WorkerReport) -> None:
        with self._changed:
            self._stages[report.stage] = report

    def gone(self, stage: int) -> None:
        with self._changed:
            self._stages.pop(stage, None)

    def publish(self, sessions: Sessions, message: str, load: Load, now: float) -> None:
        """Give watchers the report of now; a new state at once, other news after a gap."""
        state = _STATES[sessions.phase]
        with self._changed:
            if state == self._report.state and now - self._published < _GAP:
                return
            before = self._report
            self._report = self._compose(before, state, sessions, message, load)
            self._published = now
            if self._report != before:
                self._version += 1
                self._changed.notify_all()

    def watch(self) -> Iterator[pb.PipelineReport]:
        """Every report from now on, the same again after a second without news."""
        seen = -1
        while (found := self._after(seen)) is not None:
            seen, report = found
            yield report

    def _after(self, seen: int) -> tuple[int, pb.PipelineReport] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._version != seen, self._beat)
            return None if self._closed else (self._version, self._report)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _compose(
        self,
        before: pb.PipelineReport,
        state: pb.PipelineState,
        sessions: Sessions,
        message: str,
        load: Load,
    ) -> pb.PipelineReport:
        return pb.PipelineReport(
            model=before.model,
            pipeline=before.pipeline,
            revision=before.revision,
            state=state,
            message=message,
            session=sessions.session,
            sessions=sessions.formed,
            canary_seconds=sessions.canary_seconds,
            info=before.info if before.HasField("info") else None,
            stages=[self._stages[stage] for stage in sorted(self._stages)],
            waiting=load.waiting,
            running=load.running,
            sequences=load.sequences,
            sequence_slots=before.sequence_slots,
        )


def _info(info: ModelInfo) -> pb.ModelInfo:
    return pb.ModelInfo(
        architecture=info.architecture,
        task=pb.GENERATE if info.generates else pb.INFER,
        layers=info.layers,
        vocab_size=info.vocab_size,
        max_model_len=info.max_model_len,
        eos_token_ids=info.eos_token_ids,
        pad_token_id=info.pad_token_id,
        embeds_text=info.embeds_text,
        inputs=map(_spec, info.inputs),
        outputs=map(_spec, info.outputs),
    )


def _spec(spec: TensorSpec) -> pb.TensorSpec:
    return pb.TensorSpec(
        name=spec.name,
        datatype=spec.datatype,
        shape=spec.shape,
        optional=spec.optional,
        limit=spec.limit,
    )
