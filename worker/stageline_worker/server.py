"""One worker: everything that a stage is, put together. Several may live in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as _HEALTH
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_api.documents import StageDocument
from stageline_sources import PartCache
from stageline_wire.address import bracketed
from stageline_wire.credentials import Credentials, CredentialsError
from stageline_wire.logs import log
from stageline_worker.channel import SERVER_OPTIONS
from stageline_worker.control import ControlClient
from stageline_worker.facts import Facts
from stageline_worker.guard import Guard
from stageline_worker.leader.board import Board
from stageline_worker.leader.coordinator import Coordinator
from stageline_worker.leader.desk import Desk
from stageline_worker.leader.pace import Pace
from stageline_worker.leader.scheduler import Limits, Scheduler
from stageline_worker.leader.service import ControlService, PipelineService
from stageline_worker.microbatch import StageModel
from stageline_worker.ring.member import Member
from stageline_worker.ring.runner import Runner
from stageline_worker.timing import Timing
from stageline_worker.transport import Refusals, Transport
from stageline_worker.transport.grpc_inlet import GrpcTransport
from stageline_worker.transport.ladder import Ladder
from stageline_worker.transport.socket_transport import SocketTransport

_STREAMS = 256  # each open stream holds a thread
_PROBES = 2  # threads for those who ask for health in plaintext
_OWN_LAYERS = "stage"  # health service: the stage has its layers; "" is that the process answers
_LAST_WORDS = 2.0
_ENDING = 5.0

# transformers sets torch's default dtype, which is the whole process's, while it builds a model.
_LOADING = threading.Lock()


class Progress(Protocol):
    """Whom `Load` tells how it goes on."""

    def __call__(self, done: int, total: int) -> None:
        """So many bytes of so many are in memory."""

    def complain(self, sentence: str, is_mended: Callable[[], bool]) -> None:
        """Something is not as it should be, though the stage can do without; whether it still is so
        is asked now and then."""


Load = Callable[[StageDocument, Progress], StageModel]


def load_stage(document: StageDocument, progress: Progress) -> StageModel:
    """Load the document's layers of its checkpoint. Raises ModelError."""
    from stageline_worker.model import load  # transformers takes seconds; the port is bound before

    cache = PartCache(Path(document.cache)) if document.cache else None
    with _LOADING:
        model = load(
            document.uri,
            layers=document.layers,
            dtype=document.dtype,
            weight_dtype=document.weight_dtype,
            device=document.device,
            max_model_len=document.max_model_len,
            max_sequences=document.max_sequences,
            progress=progress,
            cache=cache,
        )
    if cache is not None and cache.complaint:
        progress.complain(cache.complaint, cache.of_use)
    return model


class WorkerError(Exception):
    """The worker cannot serve; the message is a sentence."""


class WorkerServer:
    """The worker of one stage document.

    `load` gives the stage's model and tells bytes loaded and bytes in all on the way. After
    `start` the worker answers at once and loads in its own thread; `wait` tells when it failed.
    WorkerError when its credentials cannot be used.
    """

    def __init__(
        self, document: StageDocument, load: Load = load_stage, timing: Timing | None = None
    ) -> None:
        self.document = document
        self._load = load
        self._timing = timing or Timing()
        self._facts = Facts(document)
        self._refusals = Refusals(self._refused)
        self._credentials = _credentials(document)
        self._control = ControlClient(document.leader, self._facts, self._timing, self._credentials)
        self._member = Member(document, self._facts, self._timing, self._control.tell)
        links = (self._member.accept, self._refusals, self._credentials)
        self._grpc = GrpcTransport(*links)
        self._sockets = SocketTransport(*links, self._timing.hello)
        self._leader = _Leader(self) if document.stage == 0 else None
        self._ring = threading.Thread(target=self._turn, name="ring", daemon=True)
        self._health = HealthServicer()
        self._has_layers(False)
        self._pool = ThreadPoolExecutor(_STREAMS, thread_name_prefix="grpc")
        self._server = self._make_server()
        self._probed = self._make_probed() if document.health else None
        self._over = threading.Event()
        self._running = False
        self._error = ""

    @property
    def facts(self) -> Facts:
        return self._facts

    def start(self) -> None:
        """Bind, attach to the leader, begin to load. Raises WorkerError when it cannot bind."""
        listen = bracketed(self.document.listen)
        self._bind(self._server, listen, self._credentials)
        if self._probed is not None:
            self._bind(self._probed, bracketed(self.document.health), None)
            self._probed.start()
        self._listen_for_links(listen)
        self._running = True
        self._server.start()
        if self._leader is not None:
            self._leader.coordinator.start()
        self._control.start(self._member, self._transport())
        self._ring.start()
        log("started", stage=self.document.stage, pipeline=self.document.pipeline, listen=listen)

    def stop(self) -> None:
        """Leave the ring and end every thread. A leader first finishes what it has accepted.
        May be called twice, or without `start`."""
        if not self._running:
            return
        self._running = False
        log("stopping", stage=self.document.stage)
        self._has_layers(False)
        if self._facts.state != pb.FAILED:
            self._facts.update(state=pb.DRAINING)
        if self._leader is not None:
            self._leader.coordinator.drain()
        self._member.stop()
        self._sockets.stop()
        self._control.stop()
        if self._leader is not None:
            self._leader.board.close()
            self._leader.pipeline.close()
        # Streams end by themselves now, with all that was said on them; strangers' are cut off.
        self._server.stop(_LAST_WORDS).wait()
        if self._probed is not None:
            self._probed.stop(None).wait()
        self._pool.shutdown(wait=False)
        if self._ring.is_alive() and self._ring is not threading.current_thread():
            self._ring.join(_ENDING)
        self._over.set()

    def wait(self, timeout: float | None = None) -> str:
        """Until the worker failed or was stopped: the sentence of its failure, or ''."""
        self._over.wait(timeout)
        return self._error

    def _make_server(self) -> grpc.Server:
        server = grpc.server(
            self._pool,
            interceptors=[] if self._credentials is None else [Guard()],
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=_STREAMS,
        )
        handlers = [self._grpc.handler()]
        if self._leader is not None:
            handlers.append(self._leader.pipeline.handler())
            services.add_ControlServicer_to_server(self._leader.control, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        server.add_generic_rpc_handlers(handlers)
        return server

    def _make_probed(self) -> grpc.Server:
        """Kubernetes' probes speak no TLS, so they have a port, on which there is nothing else."""
        pool = ThreadPoolExecutor(_PROBES, thread_name_prefix="health")
        server = grpc.server(pool, options=SERVER_OPTIONS)
        # No Watch: each one would hold a thread, and whoever held them all would deny probes.
        check = grpc.unary_unary_rpc_method_handler(
            self._health.Check,
            request_deserializer=HealthCheckRequest.FromString,
            response_serializer=HealthCheckResponse.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(_HEALTH, {"Check": check})
        server.add_generic_rpc_handlers([handler])
        return server

    def _bind(self, server: grpc.Server, address: str, credentials: Credentials | None) -> None:
        try:
            if credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, credentials.server())
        except RuntimeError:
            port = 0
        if not port:
            raise WorkerError(
                f"stage {self.document.stage} cannot listen on {address}: another process is "
                "there, or it is no address of this host"
            )

    def _transport(self) -> Transport:
        ways: dict[str, Transport] = {
            "auto": Ladder(self._sockets, self._grpc),
            "socket": self._sockets,
            "grpc": self._grpc,
        }
        return ways[self.document.transport]

    def _listen_for_links(self, listen: str) -> None:
        if self.document.transport == "grpc":
            return
        try:
            self._sockets.listen(listen)
        except OSError as error:
            reason = f"stage {self.document.stage} cannot take links over sockets: {error}"
            if self.document.transport == "socket":
                raise WorkerError(reason) from None
            log("no_sockets", stage=self.document.stage, reason=reason)

    def _turn(self) -> None:
        stage, what = self.document.stage, "cannot load its layers"
        try:
            self._facts.update(state=pb.LOADING)
            model = self._load(self.document, _Loading(self))
            self._loaded(model)
            what = "cannot go on"
            runner = Runner(stage, self.document.stages, model, self._member, self._facts)
            runner.run(self._leader.desk if self._leader is not None else None)
        except Exception as error:  # whatever it is, the leader must hear of it before the end
            self._fail(f"stage {stage} {what}: {str(error) or type(error).__name__}")

    def _fail(self, sentence: str) -> None:
        self._error = sentence
        self._has_layers(False)
        log("failed", stage=self.document.stage, reason=sentence)
        self._facts.update(state=pb.FAILED, error=sentence)
        self._over.set()

    def _loaded(self, model: StageModel) -> None:
        if self._leader is not None:
            self._leader.loaded(model)
        self._facts.update(state=pb.LOADED, loads=1, device=model.device, dtype=model.dtype)
        self._has_layers(self._running)
        log("loaded", stage=self.document.stage, device=model.device, dtype=model.dtype)

    def _has_layers(self, has: bool) -> None:
        status = HealthCheckResponse.SERVING if has else HealthCheckResponse.NOT_SERVING
        self._health.set(_OWN_LAYERS, status)

    def _refused(self, reason: str) -> None:
        self._facts.update(urgent=False, refused_frames=self._refusals.count)
        log("frame_refused", stage=self.document.stage, reason=reason)


class _Loading:
    """What is reported of a stage while it loads."""

    def __init__(self, worker: WorkerServer) -> None:
        self._stage = worker.document.stage
        self._facts = worker.facts
        self._over = worker._over
        self._gap = worker._timing.complaint

    def __call__(self, done: int, total: int) -> None:
        self._facts.update(urgent=False, loaded_bytes=done, total_bytes=total)

    def complain(self, sentence: str, is_mended: Callable[[], bool]) -> None:
        log("complaint", stage=self._stage, reason=sentence)
        self._facts.update(error=sentence)
        args = (sentence, is_mended)
        threading.Thread(
            target=self._await_mending, args=args, name="complaint", daemon=True
        ).start()

    def _await_mending(self, sentence: str, is_mended: Callable[[], bool]) -> None:
        while not self._over.wait(self._gap):
            if is_mended():
                log("complaint_over", stage=self._stage, reason=sentence)
                self._facts.withdraw(sentence)
                return


def _credentials(document: StageDocument) -> Credentials | None:
    if not document.credentials:
        return None
    try:
        return Credentials.load(Path(document.credentials))
    except CredentialsError as error:
        raise WorkerError(f"stage {document.stage} cannot speak TLS: {error}") from None


class _Leader:
    """What stage 0 has beside a stage."""

    def __init__(self, worker: WorkerServer) -> None:
        document, timing = worker.document, worker._timing
        self._document, self._timing = document, timing
        self.desk = Desk(document.pipeline, timing, worker._member.wake)
        self.board = Board(document, timing)
        incarnation = worker.facts.incarnation
        self.coordinator = Coordinator(document, incarnation, self.desk, self.board, timing)
        self.control = ControlService(self.coordinator)
        self.pipeline = PipelineService(
            document, self.coordinator, self.desk, self.board, worker._refusals
        )

    def loaded(self, model: StageModel) -> None:
        document, timing = self._document, self._timing
        max_len = model.info.max_model_len or 2**31
        in_flight = document.stages + 1
        limits = Limits(
            slots=document.max_sequences,
            kv_tokens=model.kv_tokens,
            max_len=max_len,
            chunk=document.prefill_chunk,
            # More groups than stages were smaller ones, and each costs a reading of the weights.
            groups=document.stages if model.packs else in_flight,
            in_flight=in_flight,
            max_waiting=document.max_waiting,
            packs=model.packs,
        )
        self.desk.serve(model.info, Scheduler(limits, Pace(timing.stretch)))
        self.board.model(model.info)
        self.coordinator.loaded(model.canary())
