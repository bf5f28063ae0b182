"""A leader without a ring: a real gRPC server at a pod's address that reports what it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_api.documents import StageDocument

_BEAT = 1.0
_STREAMS = 32
_LAYER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker that the leader hears."""

    document: StageDocument
    pod: str
    incarnation: int
    loaded: bool


@dataclass(frozen=True, slots=True)
class Ring:
    """What a leader shall report. Without a state: READY when all of its workers have loaded."""

    state: int | None = None
    message: str = ""
    silent: bool = False
    """It hangs: connections stand, nothing is said."""
    in_flight: int = 0
    note: str = ""
    """Why the link of stage 0 fell back."""


class FakeLeader(services.PipelineServicer):
    """Serves stageline.v1.Pipeline/Watch for one pipeline at `address` until `stop`.

    OSError when it cannot be bound.
    """

    def __init__(
        self, document: StageDocument, address: str, credentials: grpc.ServerCredentials | None
    ) -> None:
        self.document = document
        self.watchers = 0
        self._changed = threading.Condition()
        self._report: pb.PipelineReport | None = None
        self._silent = False
        self._version = 0
        self._stopped = False
        self._sessions = 0
        self._turning: tuple[int, ...] = ()
        self._pool = ThreadPoolExecutor(_STREAMS, thread_name_prefix="leader")
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        services.add_PipelineServicer_to_server(self, self._server)
        try:
            bound = self._bind(address, credentials)
        except RuntimeError:
            bound = 0
        if not bound:
            self._pool.shutdown()
            raise OSError(f"{address} is in use")
        self._server.start()

    def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    def tell(self, workers: Iterable[Worker], ring: Ring, *, draining: bool) -> None:
        """Report these workers from now on."""
        report = self._compose(sorted(workers, key=lambda w: w.document.stage), ring, draining)
        with self._changed:
            if (report, ring.silent) != (self._report, self._silent):
                self._report, self._silent = report, ring.silent
                self._version += 1
                self._changed.notify_all()

    def stop(self) -> None:
        """Hang up, as a process that is killed."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._server.stop(None).wait()
        self._pool.shutdown()

    def Watch(
        self, request: pb.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.PipelineReport]:
        mine = self.document
        wanted = (request.pipeline or mine.pipeline, request.revision or mine.revision)
        if wanted != (mine.pipeline, mine.revision):
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this is the leader of {mine.pipeline} of revision {mine.revision}",
            )
        context.add_callback(self._wake)
        seen = 0
        self._count(1)
        try:
            while (found := self._after(seen, context)) is not None:
                seen, report = found
                if report is not None:
                    yield report
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._changed:
            self.watchers += more

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _after(
        self, seen: int, context: grpc.ServicerContext
    ) -> tuple[int, pb.PipelineReport | None] | None:
        def over() -> bool:
            return self._stopped or not context.is_active()

        with self._changed:
            self._changed.wait_for(lambda: over() or self._version != seen, _BEAT)
            if over():
                return None
            return self._version, None if self._silent else self._report

    def _compose(self, workers: list[Worker], ring: Ring, draining: bool) -> pb.PipelineReport:
        mine = self.document
        state, message = self._state(workers, ring, draining)
        turning = state == pb.READY
        incarnations = tuple(worker.incarnation for worker in workers) if turning else ()
        if turning and incarnations != self._turning:
            self._sessions += 1
        self._turning = incarnations
        return pb.PipelineReport(
            model=mine.model, pipeline=mine.pipeline, revision=mine.revision, state=state,
            message=message, session=self._sessions, sessions=self._sessions, canary_seconds=0.01,
            stages=[_worker_report(worker, turning, ring.note) for worker in workers],
            running=ring.in_flight,
        )  # fmt: skip

    def _state(self, workers: list[Worker], ring: Ring, draining: bool) -> tuple[int, str]:
        name = self.document.pipeline
        if draining:
            return pb.PIPELINE_DRAINING, f"{name} is draining: {ring.in_flight} requests to finish"
        if ring.state is not None:
            return ring.state, ring.message
        loaded = {worker.document.stage: worker.loaded for worker in workers}
        for stage in range(self.document.stages):
            if not loaded.get(stage):
                what = "has not loaded its layers" if stage in loaded else "is not there"
                return pb.WAITING, f"stage {stage} {what}"
        return pb.READY, ""


def _worker_report(worker: Worker, turning: bool, note: str) -> pb.WorkerReport:
    document = worker.document
    first, end = document.layers
    total = (end - first) * _LAYER_BYTES
    loaded = pb.SERVING if turning else pb.LOADED
    report = pb.WorkerReport(
        stage=document.stage, incarnation=worker.incarnation, plan_hash=document.plan_hash,
        revision=document.revision, host=worker.pod, first_layer=first, end_layer=end,
        state=loaded if worker.loaded else pb.LOADING, total_bytes=total,
        loaded_bytes=total if worker.loaded else total // 2, loads=int(worker.loaded),
        device="cpu", dtype="float32",
    )  # fmt: skip
    if turning:
        measured = pb.WorkerReport(
            transport="grpc", microbatches=1, compute_seconds=0.01, hop_seconds=0.001,
            transport_note=note if document.stage == 0 else "",
        )  # fmt: skip
        report.MergeFrom(measured)
    return report
