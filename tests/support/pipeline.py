"""Pipelines for tests: three workers in this process, or in processes that can be killed.

    with local_pipeline(checkpoint, [2, 2, 2]) as pipeline:
        pipeline.wait_ready()
        with pipeline.router() as router:
            router.generate(1, [5, 6, 7], max_tokens=4)
            assert router.tokens_of(1) == [...]

`process_pipeline` has the same, and `kill(stage, signal)` and `restart(stage)`. Both take fields of
the stage document by name, `load=` (a picklable `Load`) for another model, and `timing=`.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import grpc

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_api.documents import StageDocument
from stageline_wire.credentials import Credentials
from stageline_worker.channel import open_channel
from stageline_worker.process import serve
from stageline_worker.server import Load, WorkerServer, load_stage
from stageline_worker.timing import Timing
from support.router import Router

_SECONDS = 30.0
# What a stage would import while it loads: seconds, and the same for each.
_PRELOADED = [
    "stageline_worker.process",
    "stageline_worker.model",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
]
# Ends of failing sessions should not cost tests whole seconds; the deadlines of hops stay.
QUICK = Timing(beat=0.3, report_gap=0.05, settle=0.05, hop_floor=5.0, silence=5.0, drain=10.0)


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody has, below the range that connections take theirs from.

    The port after each is free too: a stage takes both.
    """
    ports: set[int] = set()
    while len(ports) < count:
        port = random.SystemRandom().randrange(12_000, 32_000, 2)
        if _is_free(port) and _is_free(port + 1):
            ports.add(port)
    return list(ports)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def stage_documents(
    checkpoint: str | Path, partition: Sequence[int], **fields: object
) -> list[StageDocument]:
    """A document for each stage of one pipeline named llama-0, on free ports of 127.0.0.1."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(len(partition)))
    uri = str(checkpoint) if "://" in str(checkpoint) else f"file://{checkpoint}"
    plan = hashlib.sha256(repr((uri, tuple(partition))).encode()).hexdigest()[:12]
    values: dict[str, object] = {
        "model": "llama", "pipeline": "llama-0", "revision": "r1", "plan_hash": plan,
        "partition": tuple(partition), "uri": uri, "device": "cpu", "addresses": addresses,
        **fields,
    }  # fmt: skip
    return [
        StageDocument.model_validate({**values, "stage": stage, "listen": address})
        for stage, address in enumerate(addresses)
    ]


class Pipeline:
    """A pipeline from outside: its leader's address, and what the leader reports."""

    def __init__(self, documents: list[StageDocument]) -> None:
        self.documents = documents
        self.leader = documents[0].leader
        self.credentials: Credentials | None = None
        """A router's, where the leader asks for a certificate."""

    def report(self, seconds: float = _SECONDS) -> pb.PipelineReport:
        """The report of now."""
        return self.wait_until(lambda report: True, "a report", seconds)

    def wait_ready(self, seconds: float = _SECONDS, sessions: int = 1) -> pb.PipelineReport:
        """Wait until the ring turns in its `sessions`th session or a later one."""

        def turns(report: pb.PipelineReport) -> bool:
            failed = [stage.error for stage in report.stages if stage.state == pb.FAILED]
            assert not failed, f"the ring cannot turn: {failed[0]}"
            return report.state == pb.READY and report.sessions >= sessions

        return self.wait_until(turns, f"session {sessions} of the ring", seconds)

    def wait_until(
        self, condition: Callable[[pb.PipelineReport], bool], what: str, seconds: float = _SECONDS
    ) -> pb.PipelineReport:
        """The first report that meets the condition; fails with a sentence and the last report."""
        deadline, last = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            try:
                for last in self._watch(deadline - time.monotonic()):
                    if condition(last):
                        return last
            except grpc.RpcError:
                time.sleep(0.02)  # the leader is not there
        raise AssertionError(f"{what} did not come in {seconds} s; last report: {last}")

    def router(self) -> Router:
        """A router's end of a Serve stream; use it in a `with`."""
        return Router(self.leader, self.credentials)

    def _watch(self, seconds: float) -> Iterator[pb.PipelineReport]:
        with open_channel(self.leader, self.credentials) as channel:
            stub = services.PipelineStub(channel)
            yield from stub.Watch(pb.WatchRequest(), timeout=seconds, wait_for_ready=True)


class LocalPipeline(Pipeline):
    """Workers in this process; as a context it stops them, but starts none."""

    def __init__(self, documents: list[StageDocument], load: Load, timing: Timing) -> None:
        super().__init__(documents)
        self.workers = [WorkerServer(document, load, timing) for document in documents]

    def __enter__(self) -> LocalPipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        for worker in self.workers:
            worker.start()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


class ProcessPipeline(Pipeline):
    """Workers in processes of their own. `logs[stage]` is what a stage wrote to stderr."""

    def __init__(
        self, documents: list[StageDocument], load: Load, timing: Timing, folder: Path
    ) -> None:
        super().__init__(documents)
        self._load = load
        self._timing = timing
        self.logs = [folder / f"stage-{document.stage}.log" for document in documents]
        self.processes: list[BaseProcess] = []

    def start(self) -> None:
        self.processes = [self._spawn(document.stage) for document in self.documents]

    def pid(self, stage: int) -> int:
        pid = self.processes[stage].pid
        assert pid is not None
        return pid

    def kill(self, stage: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one stage."""
        os.kill(self.pid(stage), number)

    def join(self, stage: int, seconds: float = _SECONDS) -> int:
        """Wait for a stage's process to end; its exit code."""
        self.processes[stage].join(seconds)
        code = self.processes[stage].exitcode
        assert code is not None, f"stage {stage} still runs after {seconds} s"
        return code

    def restart(self, stage: int) -> None:
        """Start a stage anew, once its process is gone."""
        self.join(stage)
        self.processes[stage] = self._spawn(stage)

    def stop(self) -> None:
        """End every process, kindly at first."""
        for process in self.processes:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            process.join(_SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()
            process.close()

    def _spawn(self, stage: int) -> BaseProcess:
        arguments = (self.documents[stage], self._load, self._timing, self.logs[stage])
        process = _forks().Process(target=_serve, args=arguments, name=f"stage-{stage}")
        process.start()
        return process


@contextmanager
def local_pipeline(
    checkpoint: str | Path,
    partition: Sequence[int],
    *,
    load: Load = load_stage,
    timing: Timing = QUICK,
    **document_fields: object,
) -> Iterator[LocalPipeline]:
    """Workers of one pipeline in this process, started; stopped afterwards."""
    documents = stage_documents(checkpoint, partition, **document_fields)
    with LocalPipeline(documents, load, timing) as pipeline:
        pipeline.start()
        yield pipeline


@contextmanager
def process_pipeline(
    checkpoint: str | Path,
    partition: Sequence[int],
    *,
    load: Load = load_stage,
    timing: Timing = QUICK,
    **document_fields: object,
) -> Iterator[ProcessPipeline]:
    """Workers of one pipeline as processes, started; ended afterwards, whatever their state."""
    documents = stage_documents(checkpoint, partition, **document_fields)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = ProcessPipeline(documents, load, timing, Path(folder))
        pipeline.start()
        try:
            yield pipeline
        finally:
            pipeline.stop()


def _forks() -> multiprocessing.context.ForkServerContext:
    """Processes forked from one that has torch and transformers imported, and no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _serve(document: StageDocument, load: Load, timing: Timing, log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    code = serve(document, load, timing)
    os._exit(code)
