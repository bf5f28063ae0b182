"""What the router costs in CPU for each token that it passes on: python bench/router.py

The router is the real one, in a process of its own; only its CPU time is counted. Behind it stands
a leader that computes nothing and sends one token of every text in one frame a step, as a leader
does; before it, clients that read streams. The tokenizer is a byte-level BPE of 8,000 tokens that
is trained here, on the sources of Python's standard library.

Each client has one text. `apart`: a call, and a connection, for each; `together`: all texts are
requests of one call. Steps are 20 ms apart, so a router that has one stream is woken for each
token, and one that has 32 is woken once for 32.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from report import Line, show
from tokenizers import ByteLevelBPETokenizer

from stageline.oip import grpc_service_pb2 as oip
from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_api.documents import PipelineAddress, RouterDocument
from stageline_router.generation import Generation, Prompt
from stageline_router.options import GenerationOptions
from stageline_router.outgoing import Outgoing, Sender
from stageline_router.responses import TextResponses
from stageline_router.text import Tokenizer
from stageline_wire import Frame, Kind, decode, encode

_STEP: Final = 0.02  # seconds
_VOCABULARY: Final = 8_000
_STREAM: Final = "/inference.GRPCInferenceService/ModelStreamInfer"
_MOST: Final = 50.0  # us of CPU a token at 32 streams
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class PushingLeader(services.PipelineServicer):  # type: ignore[misc]
    """A leader that sends each of its generations one token a step, for ever."""

    ids: set[int] = field(default_factory=set)
    sent: int = 0

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[Any]:
        info = pb.ModelInfo(task=pb.GENERATE, vocab_size=_VOCABULARY, max_model_len=1 << 30)
        info.inputs.add(name="input_ids", datatype="INT64", shape=[-1, -1])
        while True:
            yield pb.PipelineReport(state=pb.READY, info=info)
            await asyncio.sleep(1)

    async def serve(self, frames: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Pipeline.Serve, on bytes."""
        reading = asyncio.create_task(self._read(frames))
        draw = random.Random(0)
        due = time.monotonic()
        try:
            while True:
                due += _STEP
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self.ids:
                    tokens = [(key, draw.randrange(300, _VOCABULARY), None) for key in self.ids]
                    self.sent += len(tokens)
                    yield step(tokens)
        finally:
            reading.cancel()

    async def _read(self, frames: AsyncIterator[bytes]) -> None:
        async for message in frames:
            frame = decode(message)
            if frame.kind is Kind.GENERATE:
                self.ids.add(frame.meta["id"])
            else:
                self.ids -= set(frame.meta["ids"])


@contextlib.asynccontextmanager
async def leading() -> AsyncIterator[tuple[PushingLeader, str]]:
    """The leader, and its address."""
    leader = PushingLeader()
    server = grpc.aio.server()
    services.add_PipelineServicer_to_server(leader, server)
    handler: Any = grpc.stream_stream_rpc_method_handler(leader.serve)
    server.add_registered_method_handlers("stageline.v1.Pipeline", {"Serve": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield leader, f"127.0.0.1:{port}"
    finally:
        await server.stop(0.5)  # its streams end by themselves, with the router


@contextlib.contextmanager
def routing(folder: Path, leader: str) -> Iterator[tuple[int, str]]:
    """The router as a process: its id and its address."""
    document = RouterDocument(
        model="model",
        uri=str(folder),
        listen="127.0.0.1:0",
        pipelines=(PipelineAddress(name="pipeline", leader=leader),),
    )
    path = folder / "document.json"
    path.write_text(document.model_dump_json())
    command = (sys.executable, "-m", "stageline_router", "--document", str(path))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            listening = next(line for line in process.stderr if "address=" in line)
            yield process.pid, listening.split("address=")[1].split()[0]
        finally:
            process.kill()


async def read(address: str, requests: int, begun: asyncio.Semaphore) -> None:
    """Streams of so many requests of one call, read until cancelled."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.stream_stream(_STREAM)()
        for number in range(requests):
            await call.write(request(str(number)).SerializeToString())
        async for message in call:
            told = oip.ModelStreamInferResponse.FromString(message)
            assert not told.error_message, told.error_message
            begun.release()


def request(name: str) -> Any:
    """A text of very many tokens, streamed."""
    prompt = b"def"
    made = oip.ModelInferRequest(model_name="model", id=name)
    made.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    made.raw_input_contents.append(struct.pack("<I", len(prompt)) + prompt)
    made.parameters["stream"].bool_param = True
    made.parameters["max_tokens"].int64_param = 1_000_000
    return made


async def cost(streams: int, *, together: bool, seconds: float, folder: Path) -> float:
    """Microseconds of the router's CPU for each token."""
    async with leading() as (leader, leads):
        with routing(folder, leads) as (router, address):
            begun = asyncio.Semaphore(0)
            calls = [streams] if together else [1] * streams
            reading = [asyncio.create_task(read(address, count, begun)) for count in calls]
            try:
                for _ in range(5 * streams):  # past what is done once for each
                    await begun.acquire()
                sent, before = leader.sent, cpu_seconds(router)
                await asyncio.sleep(seconds)
                return (cpu_seconds(router) - before) / (leader.sent - sent) * 1e6
            finally:
                for task in reading:
                    task.cancel()
                await asyncio.gather(*reading, return_exceptions=True)


def own(streams: int, folder: Path, steps: int = 200) -> float:
    """The part of it that is the router's own: from a step's frame to serialised responses."""
    tokenizer = Tokenizer.load(str(folder))
    assert tokenizer is not None
    outgoing, options = Outgoing(), GenerationOptions(stream=True, max_tokens=steps)
    texts = []
    for number in range(streams):
        sender = Sender(outgoing)
        responses = TextResponses("model", request(str(number)), options, tokenizer)

        def tell(
            generation: Generation, to: Sender = sender, by: TextResponses = responses
        ) -> None:
            to.last(by.delta(generation, final=False))

        prompt = Prompt("def", tokenizer.encode("def"))
        texts += Generation(prompt, options, tokenizer, tell).texts
    draw = random.Random(0)
    frames = [
        step([(key, draw.randrange(300, _VOCABULARY), None) for key in range(streams)])
        for _ in range(steps)
    ]
    before = time.process_time()
    for frame in frames:
        tokens = decode(frame).meta["tokens"]
        for key, token, finish in tokens:
            texts[key].take(token, finish, None)
        for key, *_ in tokens:
            texts[key].flush()
    return (time.process_time() - before) / (steps * streams) * 1e6


def step(tokens: list[tuple[int, int, None]]) -> bytes:
    """The frame of a step: of each text one token."""
    return b"".join(encode(Frame(Kind.TOKENS, meta={"tokens": tokens})))


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def train(folder: Path) -> None:
    """A tokenizer of natural proportions."""
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    tokenizer = ByteLevelBPETokenizer()
    texts = (path.read_text(errors="replace") for path in itertools.islice(sources, 100))
    tokenizer.train_from_iterator(texts, vocab_size=_VOCABULARY, show_progress=False)
    tokenizer.save(str(folder / "tokenizer.json"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="measure for a third of the time")
    seconds = 2.0 if parser.parse_args().quick else 6.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder)
        lines = []
        for streams, together in ((1, False), (8, False), (32, False), (32, True)):
            figure = asyncio.run(cost(streams, together=together, seconds=seconds, folder=folder))
            what = f"{streams} streams {'together' if together else 'apart'}"
            most = _MOST if streams == 32 else None
            lines.append(Line(what, figure, "us CPU/token", most))
        lines.append(Line("of it the router's own", own(32, folder), "us CPU/token"))
    show(*lines)


if __name__ == "__main__":
    main()
