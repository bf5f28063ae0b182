"""The gRPC service: Open Inference Protocol v2, errors as statuses, streams with many requests."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from stageline.oip import grpc_service_pb2 as oip
from stageline.oip import grpc_service_pb2_grpc as services
from stageline_router import description
from stageline_router.errors import Exhausted, Refusal
from stageline_router.frontdoor import FrontDoor
from stageline_router.outgoing import Outgoing, Sender
from stageline_router.pipelines import HOLD, Wait
from stageline_router.responses import error_in_stream
from stageline_router.validation import check_model
from stageline_wire.logs import log

SERVICE = "inference.GRPCInferenceService"
_SERVER = "stageline"
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Context = grpc.aio.ServicerContext[Any, Any]
_NO_MESSAGE = "what came is no ModelInferRequest: this stream ends"
_BUG = "the router failed on this request, which is a bug in Stageline: its log says where"


def _answered(
    method: Callable[[Any, _Request, _Context], Awaitable[_Response]],
) -> Callable[[Any, _Request, _Context], Awaitable[_Response]]:
    @functools.wraps(method)
    async def call(self: Any, request: _Request, context: _Context) -> _Response:
        try:
            return await method(self, request, context)
        except Refusal as refusal:
            await context.abort(refusal.code, str(refusal), _trailing(refusal))
        except Exception as error:  # gRPC would send the client its text, and log nothing of ours
            log("request_failed", method=method.__name__, error=repr(error))
            await context.abort(grpc.StatusCode.INTERNAL, _BUG)
        raise AssertionError("abort does not return")

    return call


def _trailing(refusal: Refusal) -> tuple[tuple[str, str], ...]:
    if not isinstance(refusal, Exhausted):
        return ()
    return (("retry-after", str(math.ceil(refusal.retry_after))),)


class InferenceService(services.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Translates between gRPC calls and the front door."""

    def __init__(self, door: FrontDoor, max_batch_size: int, max_delay: float) -> None:
        self._door = door
        self._max_batch_size = max_batch_size
        self._max_delay = max_delay

    async def ServerLive(
        self, request: oip.ServerLiveRequest, context: _Context
    ) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: oip.ServerReadyRequest, context: _Context
    ) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=self._door.pipelines.ready)

    @_answered
    async def ModelReady(
        self, request: oip.ModelReadyRequest, context: _Context
    ) -> oip.ModelReadyResponse:
        check_model(request.name, request.version, self._door.model)
        return oip.ModelReadyResponse(ready=self._door.pipelines.ready)

    async def ServerMetadata(
        self, request: oip.ServerMetadataRequest, context: _Context
    ) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(
            name=_SERVER, version=version("stageline"), extensions=["model_configuration"]
        )

    @_answered
    async def ModelMetadata(
        self, request: oip.ModelMetadataRequest, context: _Context
    ) -> oip.ModelMetadataResponse:
        door = self._door
        check_model(request.name, request.version, door.model)
        info = await door.pipelines.info(_patience(context)())
        return description.metadata(
            door.model, info, door.tokenizer is not None, door.template is not None
        )

    @_answered
    async def ModelConfig(
        self, request: oip.ModelConfigRequest, context: _Context
    ) -> oip.ModelConfigResponse:
        door = self._door
        check_model(request.name, request.version, door.model)
        info = await door.pipelines.info(_patience(context)())
        return description.config(
            door.model,
            info,
            door.tokenizer is not None,
            door.template is not None,
            self._max_batch_size,
            self._max_delay,
            door.pipelines.sequence_slots,
        )

    async def RepositoryIndex(
        self, request: oip.RepositoryIndexRequest, context: _Context
    ) -> oip.RepositoryIndexResponse:
        ready = self._door.pipelines.ready
        index = oip.RepositoryIndexResponse.ModelIndex(
            name=self._door.model,
            version=description.VERSION,
            state="READY" if ready else "UNAVAILABLE",
            reason="" if ready else "no pipeline is ready",
        )
        return oip.RepositoryIndexResponse(models=[] if request.ready and not ready else [index])

    @_answered
    async def ModelInfer(
        self, request: oip.ModelInferRequest, context: _Context
    ) -> oip.ModelInferResponse:
        return await self._door.infer(request, _patience(context))

    async def ModelStreamInfer(
        self, requests: AsyncIterator[oip.ModelInferRequest], context: _Context
    ) -> AsyncIterator[bytes]:
        """Each request runs by itself; its answers and its error carry its id."""
        outgoing = Outgoing()
        reader = asyncio.create_task(self._read(requests, outgoing, _patience(context)))
        try:
            while (response := await outgoing.next()) is not None:
                yield response
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(
        self, requests: AsyncIterator[oip.ModelInferRequest], outgoing: Outgoing, wait: Wait
    ) -> None:
        try:
            async with asyncio.TaskGroup() as running:
                async for request in requests:
                    running.create_task(self._stream(request, outgoing, wait))
                    await outgoing.room()
        except* DecodeError:
            nobody = oip.ModelInferRequest()
            Sender(outgoing).last(error_in_stream(nobody, _NO_MESSAGE))
        outgoing.close()

    async def _stream(self, request: oip.ModelInferRequest, outgoing: Outgoing, wait: Wait) -> None:
        sender = Sender(outgoing)
        try:
            await self._door.stream(request, wait, sender)
        except Refusal as refusal:
            sender.last(error_in_stream(request, str(refusal)))
        except Exception as error:  # one request's bug must not end the stream of the others
            log("request_failed", id=request.id, error=repr(error))
            sender.last(error_in_stream(request, _BUG))


def _patience(context: _Context) -> Wait:
    """How long to wait for a pipeline: less than the client waits, so that it hears why not."""

    def wait() -> float:
        remaining = context.time_remaining()
        return HOLD if remaining is None else max(0.0, min(HOLD, remaining - 0.5, remaining * 0.9))

    return wait


def add_inference_service(service: InferenceService, server: grpc.aio.Server) -> None:
    """Register the service. What ModelStreamInfer yields is serialised already."""
    services.add_GRPCInferenceServiceServicer_to_server(service, server)
    stream: Any = grpc.stream_stream_rpc_method_handler(
        service.ModelStreamInfer, request_deserializer=oip.ModelInferRequest.FromString
    )
    # In place of the generated handler, which would serialise what it gets.
    server.add_registered_method_handlers(SERVICE, {"ModelStreamInfer": stream})
