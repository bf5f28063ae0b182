"""How long stages wait while there is work, and tokens for the prompts of others.

Two stages of a random Llama, each on a core. Saturation: more requests of all sorts than slots, and
of the stages' own clocks the share of time in which they computed nothing though the leader had
work. Mixed load: streams decode while long prompts come; the time between two tokens of a stream,
p99 of all, with and without the prompts, with prompts in measured chunks and with chunking off.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path
from queue import SimpleQueue

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
import torch
from pipelines import LeaderClient, Model, free_ports, prompts
from workers import workers

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_api.documents import StageDocument
from stageline_wire import Frame, Kind, decode, encode
from stageline_worker.channel import open_channel
from stageline_worker.tensors import to_view
from stageline_worker.timing import Timing

SLOTS = 32
BUBBLE = 0.05  # at most
STREAMS, PROMPT = 28, 384
EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Size:
    """Requests at saturation, and tokens of each stream under mixed load."""

    requests: int
    tokens: int


FULL, QUICK = Size(requests=160, tokens=400), Size(requests=72, tokens=120)


@contextmanager
def ring(model: Model, checkpoint: Path, timing: Timing, chunk: int) -> Iterator[str]:
    half = (model.layers + 1) // 2
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    documents = [
        StageDocument(
            model="llama", pipeline="llama-0", revision="bench", plan_hash="bench", stage=stage,
            partition=(half, model.layers - half), uri=f"file://{checkpoint}", device="cpu",
            max_sequences=SLOTS, prefill_chunk=chunk, addresses=addresses, listen=addresses[stage],
        )
        for stage in range(2)
    ]  # fmt: skip
    with workers(documents, timing=timing) as leader:
        LeaderClient(leader).wait_ready()
        yield leader


class Client:
    """Asks a leader for streams, and takes down when their tokens came."""

    def __init__(self, leader: str) -> None:
        self._channel = open_channel(leader)
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        stream = self._channel.stream_stream("/stageline.v1.Pipeline/Serve")
        self._call = stream(iter(self._outgoing.get, None), wait_for_ready=True)
        self.times: dict[int, list[float]] = defaultdict(list)
        self._ended: set[int] = set()
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, request: int, length: int, count: int) -> None:
        meta = {"id": request, "max_tokens": count, "ignore_eos": True}
        ids = to_view("input_ids", torch.tensor(prompts(1, length)[0]))
        frame = Frame(Kind.GENERATE, meta=meta, tensors=(ids,))
        self._outgoing.put(b"".join(encode(frame)))

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(condition)

    def ended(self, requests: Iterable[int]) -> bool:
        return self._ended >= set(requests)

    def forget(self) -> None:
        """All that was asked has ended."""
        self.times.clear()
        self._ended.clear()

    def reports(self) -> Iterator[pb.PipelineReport]:
        stub = services.PipelineStub(self._channel)
        yield from stub.Watch(pb.WatchRequest(), wait_for_ready=True)

    def report(self, condition: Callable[[pb.PipelineReport], bool]) -> pb.PipelineReport:
        """The first report that is so."""
        return next(filter(condition, self.reports()))

    def close(self) -> None:
        self._outgoing.put(None)
        self._channel.close()

    def _read(self) -> None:
        with suppress(grpc.RpcError, ValueError):  # closed
            for message in self._call:
                now, frame = time.perf_counter(), decode(message)
                assert frame.kind is Kind.TOKENS, frame.meta
                with self._changed:
                    for request, _, finish in frame.meta["tokens"]:
                        self.times[request].append(now)
                        if finish:
                            self._ended.add(request)
                    self._changed.notify_all()


def bubbles(client: Client, size: Size) -> list[float]:
    """Of each stage, while requests wait for a slot: seconds waited of seconds waited or busy."""
    chance = random.Random(1)
    for number in range(size.requests):
        client.ask(number, chance.randint(8, 160), chance.randint(16, 96))
    client.wait(lambda: len(client.times) >= SLOTS)
    first = last = client.report(lambda report: True)
    for report in client.reports():
        if not report.waiting:
            break
        last = report
    client.wait(lambda: client.ended(range(size.requests)))
    return [_share(a, b) for a, b in zip(first.stages, last.stages, strict=True)]


def _share(first: pb.WorkerReport, last: pb.WorkerReport) -> float:
    waited = last.waiting_seconds - first.waiting_seconds
    return waited / (waited + last.busy_seconds - first.busy_seconds)


def between_tokens(client: Client, size: Size, *, long: bool) -> list[float]:
    """Seconds from token to token of the streams, in order of size; with `long` prompts coming."""
    streams = range(1000, 1000 + STREAMS)
    client.forget()
    for number in streams:
        client.ask(number, 32, size.tokens)
    client.wait(lambda: all(len(client.times[number]) > 4 for number in streams))
    began, number = time.perf_counter(), 2000
    while not any(client.ended([stream]) for stream in streams):
        if long and time.perf_counter() - began > (number - 2000) * EVERY_SECONDS:
            client.ask(number, PROMPT, 2)
            number += 1
        time.sleep(0.02)
    ended = time.perf_counter()
    client.wait(lambda: client.ended([*streams, *range(2000, number)]))
    gaps = [
        after - before
        for stream in streams
        for before, after in pairwise(client.times[stream])
        if began < before and after < ended
    ]
    return sorted(gaps)


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer tokens, for a first look")
    size = QUICK if parser.parse_args().quick else FULL
    torch.set_num_threads(1)
    model = Model(layers=15)  # and a head that costs about as much as one: both stages have eight
    forms = {"measured chunks": (Timing(), 512), "chunking off": (Timing(stretch=inf), 10**6)}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        checkpoint = model.save(Path(scratch) / "model")
        clients = {}
        for name, (timing, chunk) in forms.items():
            leader = running.enter_context(ring(model, checkpoint, timing, chunk))
            clients[name] = Client(leader)
            running.callback(clients[name].close)
        measured, off = clients.values()
        waits = bubbles(measured, size)
        told = ", ".join(f"stage {stage} {wait:.1%}" for stage, wait in enumerate(waits))
        print(f"llama, hidden {model.hidden}, {model.layers} layers, float32; {SLOTS} slots")
        print(f"saturation: stages waited while there was work: {told} (at most {BUBBLE:.0%})")
        alone = between_tokens(measured, size, long=False)
        print(f"{STREAMS} streams, from token to token          median       p99  p99 x alone")
        for name, gaps in (
            ("alone", alone),
            (f"prompts of {PROMPT}, measured chunks", between_tokens(measured, size, long=True)),
            (f"prompts of {PROMPT}, chunking off", between_tokens(off, size, long=True)),
        ):
            p50, p99 = (1000 * quantile(gaps, part) for part in (0.5, 0.99))
            slower = p99 / (1000 * quantile(alone, 0.99))
            print(f"{name:38} {p50:6.1f} ms {p99:6.1f} ms  {slower:11.2f}")


if __name__ == "__main__":
    main()
