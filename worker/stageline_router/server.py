"""The router: one Open Inference Protocol server in front of the pipelines of one model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from stageline.pool import POOL
from stageline_api.documents import RouterDocument
from stageline_router.admission import Admission
from stageline_router.batcher import Batcher
from stageline_router.chat import ChatTemplate, DamagedTemplate
from stageline_router.dial import Dial
from stageline_router.doorkeeper import Doorkeeper, front_credentials
from stageline_router.frontdoor import FrontDoor
from stageline_router.pipelines import Pipelines
from stageline_router.service import SERVICE, InferenceService, add_inference_service
from stageline_router.text import Tokenizer
from stageline_wire.logs import log

MAX_REQUEST_BYTES = 256 << 20
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # two routers on one port would each get half of the calls, silently
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
]
_ROUTER = "router"
_HEALTH = health_pb2.HealthCheckResponse
# The reflection service looks all names up in one pool, and ours is not the default one.
for _module in (health_pb2, reflection_pb2):
    POOL.AddSerializedFile(_module.DESCRIPTOR.serialized_pb)


class RouterError(Exception):
    """The router cannot start; the message says why."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where Secrets are, each as a kubelet mounts it; what is absent is done without."""

    credentials: Path | None = None
    """By which leaders know the router: ca.crt, tls.crt, tls.key."""
    tls: Path | None = None
    """By which clients do: tls.crt, tls.key."""
    tokens: Path | None = None
    """By which the router knows clients: token."""


_NO_FOLDERS = Folders()


class RouterServer:
    """`start`, `update` when the document changes, `stop` to drain.

    Health has three levels: "" is that the process answers, "router" that it accepts requests and
    holds them if need be, the names of the service and of the model that one would be answered.
    """

    def __init__(self, document: RouterDocument, folders: Folders = _NO_FOLDERS) -> None:
        self.document = document
        self.address = document.listen
        self._folders = folders
        self._pipelines = Pipelines(
            document.model, self._readiness_changed, Dial(folders.credentials)
        )
        self._health = health.aio.HealthServicer()
        self._servers: list[grpc.aio.Server] = []
        self._ready: bool | None = None
        self._stopping = False
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind, and begin to look for pipelines. Raises RouterError."""
        document, folders = self.document, self._folders
        try:
            tokenizer = Tokenizer.load(document.uri)
            template = _chat_template(document.uri) if tokenizer else None
            front = front_credentials(folders.tls, document.tls_secret) if folders.tls else None
            keepers = [Doorkeeper(folders.tokens, document.token_secret)] if folders.tokens else []
        except ValueError as error:
            raise RouterError(str(error)) from None
        delay = document.max_delay_milliseconds / 1000
        door = FrontDoor(
            document.model,
            tokenizer,
            template,
            self._pipelines,
            Batcher(self._pipelines, document.max_batch_size, delay),
            Admission(document.max_queue),
        )
        server = grpc.aio.server(interceptors=keepers, options=_OPTIONS)
        service = InferenceService(door, document.max_batch_size, delay)
        add_inference_service(service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server, pool=POOL)
        self.address = _bind(server, self.address, front)
        self._servers = [server, *self._probed()]
        for each in self._servers:
            await each.start()
        await self._health.set(_ROUTER, _HEALTH.SERVING)
        log("listening", address=self.address, model=document.model)
        await self._pipelines.update(document.pipelines)

    async def update(self, document: RouterDocument) -> None:
        """Take a new document's pipelines; what else is in it needs a new process."""
        fixed = document.model_copy(update={"pipelines": self.document.pipelines})
        if fixed != self.document:
            log("restart_needed", reason="the document changed beyond its pipelines")
        self.document = self.document.model_copy(update={"pipelines": document.pipelines})
        log("pipelines", names=",".join(pipeline.name for pipeline in document.pipelines))
        await self._pipelines.update(document.pipelines)

    async def stop(self, grace: float) -> None:
        """Refuse new requests, finish those that are here within `grace` seconds, hang up."""
        self._stopping = True
        if self._telling is not None:
            await asyncio.gather(self._telling, return_exceptions=True)
        await self._tell_health(_ROUTER, SERVICE, self.document.model, serving=False)
        self._pipelines.hold_no_more()
        for server in self._servers:
            await server.stop(grace)
        await self._pipelines.stop()

    def _probed(self) -> list[grpc.aio.Server]:
        """Kubernetes' probes speak no TLS, so they have a port, on which there is nothing else."""
        if not self.document.health:
            return []
        server = grpc.aio.server(options=_OPTIONS)
        check = grpc.unary_unary_rpc_method_handler(
            self._health.Check,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=_HEALTH.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(health.SERVICE_NAME, {"Check": check})
        server.add_generic_rpc_handlers((handler,))
        _bind(server, self.document.health, None)
        return [server]

    def _readiness_changed(self) -> None:
        if (ready := self._pipelines.ready) != self._ready and not self._stopping:
            self._ready = ready
            log("ready" if ready else "not_ready", model=self.document.model)
            names = {SERVICE, self.document.model} - {_ROUTER}  # a model may have any name
            self._telling = asyncio.create_task(self._tell_health(*names, serving=ready))

    async def _tell_health(self, *names: str, serving: bool) -> None:
        status = _HEALTH.SERVING if serving else _HEALTH.NOT_SERVING
        for name in names:
            await self._health.set(name, status)


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """The address with the port that it got; RouterError when it gets none."""
    host = address.rpartition(":")[0]
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        port = 0
    if not port:
        raise RouterError(
            f"{address} cannot be bound: it is in use, or not an address of this machine"
        )
    return f"{host}:{port}"


def _chat_template(uri: str) -> ChatTemplate | None:
    """One that is damaged is no reason to serve no text."""
    try:
        return ChatTemplate.load(uri)
    except DamagedTemplate as error:
        log("chat_template_refused", reason=error)
        return None
