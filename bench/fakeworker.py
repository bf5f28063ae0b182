"""What 1,000 pipelines on fake nodes lack: leaders that report, and profiles that get taken.

One process answers stageline.v1.Pipeline/Watch for every pipeline there is, as a leader would whose
ring turns, and ends every profile pod with a profile.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Final

import grpc
import standin
from access import Server, connected

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_api.profile import ModelProfile, Unit
from stageline_local.client import POD, ApiError, Client, Object
from stageline_worker.last_words import packed

PROFILE_PODS: Final = "app.kubernetes.io/component=profile"
_LAYER_BYTES: Final = 200 << 20
WORKER_PORT: Final = 7070
"""Of every worker."""
_START_SECONDS: Final = 30.0
_OPTIONS: Final = (("grpc.http2.min_ping_interval_without_data_ms", 5_000),)  # as a worker's


@dataclass(frozen=True, slots=True)
class Pretence:
    """What every pipeline is like."""

    stages: int = 4
    layers: int = 24
    nodes: bool = False
    """Whether nodes and their controllers are pretended as well (standin.py)."""


@dataclass(frozen=True, slots=True)
class Worked:
    """Where the pretended workers are."""

    process: int
    """Its number."""
    port: int
    """On loopback."""


@contextmanager
def working(server: Server, pretence: Pretence) -> Iterator[Worked]:
    """The workers, in a process of their own until the block ends."""
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_main, args=(server, pretence, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(_START_SECONDS):
            raise SystemExit("the fake workers did not start")
        yield Worked(process.pid or 0, ours.recv())
    finally:
        process.terminate()
        process.join()


def _main(server: Server, pretence: Pretence, parent: Connection) -> None:
    asyncio.run(_work(server, pretence, parent))


async def _work(server: Server, pretence: Pretence, parent: Connection) -> None:
    address = _own_address() if pretence.nodes else "127.0.0.1"
    port = WORKER_PORT if pretence.nodes else 0
    async with (
        _leaders(pretence, f"{address}:{port}") as port,
        connected(server) as client,
        asyncio.TaskGroup() as work,
    ):
        work.create_task(_end_profiles(client, profile(pretence.layers)))
        if pretence.nodes:
            work.create_task(standin.StandIn(client, address).run())
        parent.send(port)


def _own_address() -> str:
    """One on loopback that nobody else listens on."""
    return ".".join(("127", *(str(1 + secrets.randbelow(250)) for _ in range(3))))


@asynccontextmanager
async def _leaders(pretence: Pretence, address: str) -> AsyncIterator[int]:
    server = grpc.aio.server(options=_OPTIONS)
    services.add_PipelineServicer_to_server(_Leaders(pretence), server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


class _Leaders(services.PipelineServicer):
    """The leader of whichever pipeline is asked for."""

    def __init__(self, pretence: Pretence) -> None:
        self._pretence = pretence

    async def Watch(
        self, request: pb.WatchRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.PipelineReport]:
        yield report(request, self._pretence)
        await asyncio.Event().wait()  # nothing changes; whoever asked hangs up


def report(request: pb.WatchRequest, pretence: Pretence) -> pb.PipelineReport:
    """A ring that turns."""
    share = pretence.layers // pretence.stages
    return pb.PipelineReport(
        pipeline=request.pipeline, revision=request.revision, state=pb.READY, session=1, sessions=1,
        stages=[
            pb.WorkerReport(
                stage=stage, incarnation=1, revision=request.revision, state=pb.SERVING,
                first_layer=stage * share, end_layer=(stage + 1) * share,
                loaded_bytes=share * _LAYER_BYTES, total_bytes=share * _LAYER_BYTES, loads=1,
                device="cpu", dtype="bfloat16", transport="grpc", session=1, microbatches=1,
                compute_seconds=0.01, hop_seconds=0.0005,
            )
            for stage in range(pretence.stages)
        ],
    )  # fmt: skip


def profile(layers: int) -> str:
    """The termination message of a pod that has profiled a model of equal layers."""
    matrix = {"parameters": 32_000 * 1024, "stored_bytes": 2 * 32_000 * 1024}
    made = ModelProfile(
        architecture="LlamaForCausalLM", task="generate", dtype="bfloat16", hidden_size=1024,
        vocab_size=32_000, max_model_len=8192, tied_parameters=0,
        units=(
            Unit(kind="embedding", active_parameters=1024, **matrix),
            Unit(
                kind="layer", count=layers, parameters=_LAYER_BYTES // 2,
                active_parameters=_LAYER_BYTES // 2, stored_bytes=_LAYER_BYTES,
                kv_values_per_token=1024,
            ),
            Unit(kind="head", active_parameters=matrix["parameters"], **matrix),
        ),
    )  # fmt: skip
    return packed(made)


async def _end_profiles(client: Client, message: str) -> None:
    """Runs until it is cancelled."""
    async with asyncio.TaskGroup() as ending:
        async for change in client.follow(POD.place(), labels=PROFILE_PODS):
            if change.type in ("ADDED", "MODIFIED") and _runs(change.object):
                ending.create_task(_end(client, change.object, message))


def _runs(pod: Object) -> bool:
    """A fake node has said so: it says nothing more of this pod."""
    status = pod.get("status") or {}
    return bool(status.get("podIP")) and status.get("phase") == "Running"


async def _end(client: Client, pod: Object, message: str) -> None:
    body = ended(message) | {"metadata": {"uid": pod["metadata"]["uid"]}}
    try:
        await client.merge_patch(POD.of(pod), body, subresource="status")
    except ApiError as error:
        if error.status not in (404, 409):  # gone, or another by now
            raise


def ended(message: str) -> Object:
    """The status of a profile pod that has succeeded, as a merge patch."""
    terminated = {"exitCode": 0, "reason": "Completed", "message": message}
    container = {
        "name": "profile", "image": "", "imageID": "", "ready": False, "started": False,
        "restartCount": 0, "state": {"terminated": terminated},
    }  # fmt: skip
    conditions = [{"type": kind, "status": "False"} for kind in ("Ready", "ContainersReady")]
    told = {"phase": "Succeeded", "containerStatuses": [container], "conditions": conditions}
    return {"status": told}
