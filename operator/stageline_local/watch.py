"""What a running pipeline says of itself: its leader's reports, its router's readiness.

Both are asked for from the first second on, again and again, because leader and router come and go
as any process does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from stageline.oip import grpc_service_pb2 as oip
from stageline.oip.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from stageline.v1 import pipeline_pb2
from stageline.v1.pipeline_pb2_grpc import PipelineStub

_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
)
_AGAIN_SECONDS = 0.1
_STILL_READY_SECONDS = 1.0
_ANSWER_SECONDS = 2.0


async def watch_pipeline(leader: str, tell: Callable[[Any], None]) -> None:
    """Call `tell` with each PipelineReport of the leader, with None when it falls silent."""
    async with grpc.aio.insecure_channel(leader, options=_OPTIONS) as channel:
        stub = PipelineStub(channel)
        while True:
            try:
                async for report in stub.Watch(pipeline_pb2.WatchRequest(), wait_for_ready=True):
                    tell(report)
            except grpc.aio.AioRpcError:  # died, is starting, drains: it comes back or is replaced
                pass
            tell(None)
            await asyncio.sleep(_AGAIN_SECONDS)


async def watch_router(address: str, model: str, tell: Callable[[bool], None]) -> None:
    """Call `tell` with whether the router says that the model is ready."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub = GRPCInferenceServiceStub(channel)
        while True:
            ready = await _model_ready(stub, model)
            tell(ready)
            await asyncio.sleep(_STILL_READY_SECONDS if ready else _AGAIN_SECONDS)


async def _model_ready(stub: GRPCInferenceServiceStub, model: str) -> bool:
    try:
        request = oip.ModelReadyRequest(name=model)
        return bool((await stub.ModelReady(request, timeout=_ANSWER_SECONDS)).ready)
    except grpc.aio.AioRpcError:
        return False
