"""A leader without a model: a real gRPC server that answers each frame as a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_wire import Frame, Kind, decode, encode

VOCABULARY = 320


class Broke(Exception):
    """What a script raises to break the stream."""


class ScriptedLeader(services.PipelineServicer):
    """Ready at once. `frames` are all that came, over all of its streams."""

    def __init__(self, script: Callable[[Frame], Iterable[Frame]]) -> None:
        self._script = script
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self.frames: list[Frame] = []
        self.address = ""

    def count(self, kind: Kind) -> int:
        """How many frames of this kind have come."""
        return sum(frame.kind is kind for frame in self.frames)

    def wait_for(self, kind: Kind, count: int = 1, seconds: float = 20.0) -> None:
        """Return when so many frames of this kind have come."""
        with self._changed:
            came = self._changed.wait_for(lambda: self.count(kind) >= count, seconds)
        assert came, f"{self.count(kind)} of {count} {kind.name} frames came in {seconds} s"

    def Watch(self, request: pb.WatchRequest, context: grpc.ServicerContext) -> Iterator:
        info = pb.ModelInfo(task=pb.GENERATE, vocab_size=VOCABULARY, max_model_len=4096)
        info.inputs.add(name="input_ids", datatype="INT64", shape=[-1, -1])
        while context.is_active() and not self._stopped.is_set():
            yield pb.PipelineReport(state=pb.READY, info=info)
            self._stopped.wait(0.5)

    def _serve(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            for message in messages:
                frame = decode(message)
                with self._changed:
                    self.frames.append(frame)
                    self._changed.notify_all()
                for answer in self._script(frame):
                    yield b"".join(encode(answer))
        except Broke:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the process is gone")


@contextmanager
def scripted(script: Callable[[Frame], Iterable[Frame]]) -> Iterator[ScriptedLeader]:
    """A leader that follows this script, at `address`."""
    leader = ScriptedLeader(script)
    with ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool)
        services.add_PipelineServicer_to_server(leader, server)
        serve = grpc.stream_stream_rpc_method_handler(leader._serve)
        handler = grpc.method_handlers_generic_handler("stageline.v1.Pipeline", {"Serve": serve})
        server.add_generic_rpc_handlers((handler,))
        leader.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield leader
        finally:
            leader._stopped.set()
            server.stop(None).wait()


def tokens(frame: Frame, *said: int, finish: str | None = None) -> Frame:
    """One step's answer to a GENERATE: these tokens, the last one with a reason."""
    reasons = [None] * (len(said) - 1) + [finish]
    asked = frame.meta["id"]
    told = [[asked, token, why] for token, why in zip(said, reasons, strict=True)]
    return Frame(Kind.TOKENS, meta={"tokens": told})


def failure(frame: Frame, code: str, message: str, **meta: object) -> Frame:
    """A FAILURE in answer to a frame."""
    told = {"id": frame.meta["id"], "code": code, "message": message, "elsewhere": False}
    return Frame(Kind.FAILURE, meta=told | meta)
