"""A router in front of real stages, for clients that know nothing of Stageline.

    with front_door(checkpoint("bert"), [2, 2, 2]) as front:
        with tritonclient.grpc.InferenceServerClient(front.address) as client: ...

Router and workers run in this process, the router's loop in a thread of its own. Every byte still
passes over sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stageline_api.documents import PipelineAddress, RouterDocument
from stageline_router.server import Folders, RouterServer
from support.pipeline import Pipeline, local_pipeline


@dataclass(frozen=True)
class Front:
    """Where the router listens, what it serves, and what is behind it."""

    address: str
    model: str
    pipelines: tuple[Pipeline, ...]
    server: RouterServer
    loop: asyncio.AbstractEventLoop

    def run(self, coroutine, seconds: float = 30.0):
        """Run a coroutine of the router in its own loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)


def router_document(uri, leaders: Sequence[str], **fields: object) -> RouterDocument:
    """A document for these leaders, on a port that the router picks."""
    pipelines = [PipelineAddress(name="llama-0", leader=leader) for leader in leaders]
    values = {"model": "model", "uri": str(uri), "listen": "127.0.0.1:0", **fields}
    return RouterDocument.model_validate({**values, "pipelines": pipelines})


@contextmanager
def router(
    document: RouterDocument, pipelines: Sequence[Pipeline] = (), folders: Folders | None = None
) -> Iterator[Front]:
    """A router alone, started in a thread; drained and stopped afterwards."""
    started: Future[Front] = Future()
    stopped = asyncio.Event()

    async def serve() -> None:
        server = RouterServer(document, folders or Folders())
        try:
            await server.start()
        except Exception as error:  # whoever waits for the start must hear of it
            started.set_exception(error)
            return
        loop = asyncio.get_running_loop()
        started.set_result(Front(server.address, document.model, tuple(pipelines), server, loop))
        await stopped.wait()
        await server.stop(grace=5)

    with ThreadPoolExecutor(1, thread_name_prefix="router") as thread:
        ended = thread.submit(asyncio.run, serve())
        front = started.result(30)
        try:
            yield front
        finally:
            front.loop.call_soon_threadsafe(stopped.set)
            ended.result(30)


@contextmanager
def front_door(
    folder: str | Path, partition: Sequence[int], replicas: int = 1, **fields: object
) -> Iterator[Front]:
    """Pipelines of this checkpoint, ready, with a router in front; fields of its document."""
    with ExitStack() as stack:
        pipelines = [
            stack.enter_context(local_pipeline(folder, partition)) for _ in range(replicas)
        ]
        for pipeline in pipelines:
            pipeline.wait_ready()
        document = router_document(folder, [p.leader for p in pipelines], **fields)
        front = stack.enter_context(router(document, pipelines))
        _wait_serving(front)
        yield front


def _wait_serving(front: Front) -> None:
    """A pipeline that is ready is not yet a router that has heard of it."""
    with grpc.insecure_channel(front.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        for answer in watch(health_pb2.HealthCheckRequest(service=front.model), timeout=30):
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
