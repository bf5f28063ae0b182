"""The gRPC service: Open Inference Protocol v2, errors as statuses, streams with many requests."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from importlib.metadata import version
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from stageline.oip import grpc_service_pb2 as oip
from stageline.oip import grpc_service_pb2_grpc as services
from stageline_router import description
from stageline_router.errors import Refusal
from stageline_router.frontdoor import FrontDoor
from stageline_router.pipelines import HOLD
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
            await context.abort(refusal.code, str(refusal))
        except Exception as error:  # gRPC would send the client its text, and log nothing of ours
            log("request_failed", method=method.__name__, error=repr(error))
            await context.abort(grpc.StatusCode.INTERNAL, _BUG)
        raise AssertionError("abort does not return")

    return call


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
        info = await door.pipelines.info(_seconds(context))
        return description.metadata(door.model, info, door.tokenizer is not None)

    @_answered
    async def ModelConfig(
        self, request: oip.ModelConfigRequest, context: _Context
    ) -> oip.ModelConfigResponse:
        door = self._door
        check_model(request.name, request.version, door.model)
        info = await door.pipelines.info(_seconds(context))
        return description.config(
            door.model, info, door.tokenizer is not None, self._max_batch_size, self._max_delay
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
        return await self._door.infer(request, _seconds(context))

    async def ModelStreamInfer(
        self, requests: AsyncIterator[oip.ModelInferRequest], context: _Context
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        """Each request runs by itself; its answers and its error carry its id."""
        # Bounded: a client that does not read holds its own generations back, nobody else's.
        outgoing: asyncio.Queue[oip.ModelStreamInferResponse | None] = asyncio.Queue(64)
        reader = asyncio.create_task(self._read(requests, outgoing, _seconds(context)))
        try:
            while (response := await outgoing.get()) is not None:
                yield response
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(
        self,
        requests: AsyncIterator[oip.ModelInferRequest],
        outgoing: asyncio.Queue[oip.ModelStreamInferResponse | None],
        seconds: float,
    ) -> None:
        try:
            async with asyncio.TaskGroup() as running:
                async for request in requests:
                    running.create_task(self._stream(request, outgoing, seconds))
        except* DecodeError:
            await outgoing.put(_stream_error(oip.ModelInferRequest(), _NO_MESSAGE))
        await outgoing.put(None)

    async def _stream(
        self,
        request: oip.ModelInferRequest,
        outgoing: asyncio.Queue[oip.ModelStreamInferResponse | None],
        seconds: float,
    ) -> None:
        try:
            async with aclosing(self._door.stream(request, seconds)) as responses:
                async for response in responses:
                    await outgoing.put(oip.ModelStreamInferResponse(infer_response=response))
        except Refusal as refusal:
            await outgoing.put(_stream_error(request, str(refusal)))
        except Exception as error:  # one request's bug must not end the stream of the others
            log("request_failed", id=request.id, error=repr(error))
            await outgoing.put(_stream_error(request, _BUG))


def _stream_error(request: oip.ModelInferRequest, message: str) -> oip.ModelStreamInferResponse:
    """The id goes along, so that a client with several requests knows which one it was."""
    response = oip.ModelInferResponse(model_name=request.model_name, id=request.id)
    response.parameters["triton_final_response"].bool_param = True
    return oip.ModelStreamInferResponse(error_message=message, infer_response=response)


def _seconds(context: _Context) -> float:
    """How long to wait for a pipeline: less than the client waits, so that it hears why not."""
    remaining = context.time_remaining()
    return HOLD if remaining is None else max(0.0, min(HOLD, remaining - 0.5, remaining * 0.9))
