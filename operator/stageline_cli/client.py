"""A client of any server of the Open Inference Protocol v2 over gRPC.

Nothing of Stageline's own is needed: what a server does not say is done without.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import typer

from stageline.oip import grpc_service_pb2 as oip
from stageline.oip.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from stageline_cli.dialling import Server
from stageline_cli.failure import Failure
from stageline_cli.tensors import Tensor, from_json

CONNECT_SECONDS = 5.0
_SLOTS = "sequence_slots"  # as Stageline's routers call it
_CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
INTERRUPTED = 130  # 128 + SIGINT, as a shell would say it


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end; Ctrl-C cancels its calls and makes the exit code 130."""
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@asynccontextmanager
async def connect(server: Server) -> AsyncIterator[Client]:
    """A client of the server; Failure when none answers."""
    metadata = server.metadata()
    async with server.channel() as channel:
        try:
            await asyncio.wait_for(_connected(channel, server), CONNECT_SECONDS)
        except TimeoutError:
            raise Failure(server.silence) from None
        yield Client(channel, metadata)


async def _connected(channel: grpc.aio.Channel, server: Server) -> None:
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise Failure(server.silence)
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


class Client:
    """The calls that the command line makes. Every error is a Failure with a sentence."""

    def __init__(
        self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, Any], ...] = ()
    ) -> None:
        self._metadata = metadata
        self._stub = GRPCInferenceServiceStub(channel)
        # The same on the wire as a stream of one request. As a stream, grpc.aio reports INTERNAL
        # in place of the server's status when that comes before the request is written.
        self._stream_of_one = channel.unary_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=oip.ModelInferRequest.SerializeToString,
            response_deserializer=oip.ModelStreamInferResponse.FromString,
        )

    async def the_model(self, name: str | None) -> str:
        """`name`, or without one the only model that the server has."""
        if name:
            return name
        try:
            request = oip.RepositoryIndexRequest()
            index = await self._stub.RepositoryIndex(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise Failure("the server does not list its models: name one, --model") from None
            raise refused(error) from None
        names = sorted({model.name for model in index.models})
        if len(names) != 1:
            has = f"has the models {', '.join(names)}" if names else "has no model"
            raise Failure(f"the server {has}: name one with --model")
        return str(names[0])

    async def metadata(self, model: str) -> Any:
        """What the server says of the model's inputs and outputs (ModelMetadataResponse)."""
        try:
            request = oip.ModelMetadataRequest(name=model)
            return await self._stub.ModelMetadata(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise refused(error) from None

    async def sequence_slots(self, model: str) -> int | None:
        """How many texts the server makes at once; None when it does not say."""
        try:
            request = oip.ModelConfigRequest(name=model)
            answer = await self._stub.ModelConfig(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise refused(error) from None
        told = answer.config.parameters
        slots = told[_SLOTS].string_value if _SLOTS in told else ""
        return int(slots) if slots.isdecimal() else None

    async def infer(self, request: Any, seconds: float | None) -> list[Tensor]:
        """One request, all of its outputs; `seconds` is its deadline."""
        try:
            response = await self._stub.ModelInfer(
                request, timeout=seconds, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise refused(error, seconds) from None
        return outputs(response)

    async def stream(self, request: Any, seconds: float | None) -> AsyncIterator[list[Tensor]]:
        """One request, its responses as they come. NoStream when the server has no such call."""
        try:
            responses = self._stream_of_one(request, timeout=seconds, metadata=self._metadata)
            async for response in responses:
                if response.error_message:
                    raise Failure(response.error_message)
                yield outputs(response.infer_response)
                if response.infer_response.parameters["triton_final_response"].bool_param:
                    return
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise NoStream from None
            raise refused(error, seconds) from None


class NoStream(Exception):
    """The server has no ModelStreamInfer."""


class Refused(Failure):
    """The server's refusal. `retry_after` are the seconds after which it would have it again."""

    def __init__(self, message: str, code: grpc.StatusCode, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after

    @property
    def passing(self) -> bool:
        """Whether nothing is wrong with the request itself."""
        return bool(self.retry_after) or self.code in _PASSING


def refused(error: grpc.aio.AioRpcError, seconds: float | None = None) -> Refused:
    """The server's own sentence, or what its status means where it says nothing."""
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and seconds is not None:
        return Refused(f"no answer within {seconds:g} s: give more with --timeout", code)
    message = error.details() or f"the server refused with {code.name}"
    return Refused(message, code, _retry_after(error))


def _retry_after(error: grpc.aio.AioRpcError) -> float:
    """What the server says; one second where it only says that it is busy."""
    told = dict(error.trailing_metadata() or ()).get("retry-after", b"")
    seconds = told.decode(errors="replace") if isinstance(told, bytes) else told
    busy = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return float(seconds) if seconds.isdecimal() and busy else float(busy)


def infer_request(
    model: str, inputs: Iterable[Tensor], names: Sequence[str] = (), **parameters: bool
) -> Any:
    """A ModelInferRequest with raw contents; `names` are the outputs wanted, all if none."""
    inputs = list(inputs)
    return oip.ModelInferRequest(
        model_name=model,
        inputs=[
            oip.ModelInferRequest.InferInputTensor(
                name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
            )
            for tensor in inputs
        ],
        outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names],
        raw_input_contents=[tensor.raw for tensor in inputs],
        parameters={key: oip.InferParameter(bool_param=v) for key, v in parameters.items()},
    )


def outputs(response: Any) -> list[Tensor]:
    """The tensors of a ModelInferResponse, whether they came raw or typed."""
    raw = response.raw_output_contents
    if raw and len(raw) != len(response.outputs):
        raise Failure(f"the server sent {len(raw)} contents for {len(response.outputs)} outputs")
    return [
        _tensor(output, raw[position] if raw else _typed(output))
        for position, output in enumerate(response.outputs)
    ]


def _tensor(output: Any, raw: bytes) -> Tensor:
    return Tensor(output.name, output.datatype, tuple(output.shape), raw).check()


def _typed(output: Any) -> bytes:
    if output.datatype == "BYTES":
        texts = output.contents.bytes_contents
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    field = _CONTENTS.get(output.datatype)
    if field is None:
        raise Failure(f"{output.name} came as {output.datatype} without raw contents")
    return from_json(output.name, list(getattr(output.contents, field)), output.datatype).raw
