"""What a step costs beyond the model's own forward pass, by the number of sequences in it.

Two stages of a random Llama, a core each, two groups in flight, behind the router, while a client
of the front door reads its stream. `forward` is the CPU time of both stages' forward passes of a
group's step, drawing of tokens included: by the stages' own clocks, less the time that their
threads waited for the core. `stage 0` (with the leader), `stage 1` and `router` are the CPU time
that their processes take for a step beyond that, every thread included. `share` is all that is
beyond, of the whole. The client's own CPU time, none of the engine's, stands beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import torch
from cost import Threads
from pipelines import Cut, DoorClient, LeaderClient, Model, pipeline, prompts, router

from stageline.v1 import pipeline_pb2 as pb

PROMPT, TOKENS, MAX_LEN, MOST = 4, 96, 128, 256
TARGET_SEQUENCES, TARGET = 8, 0.08
RING = "ring"
STAGES = (f"{RING}-0", f"{RING}-1")
ROUTER = f"{RING}-router"


@dataclass(frozen=True)
class Row:
    """Seconds of CPU for a step of one group: stages, their forward passes, router, client."""

    sequences: int
    stages: tuple[float, ...]
    forwards: tuple[float, ...]
    router: float
    client: float

    @property
    def beyond(self) -> tuple[float, ...]:
        stages = (whole - own for whole, own in zip(self.stages, self.forwards, strict=True))
        return (*stages, self.router)

    @property
    def share(self) -> float:
        return sum(self.beyond) / (sum(self.stages) + self.router)

    def __str__(self) -> str:
        parts = " ".join(f"{1e6 * seconds:8.0f}" for seconds in self.beyond)
        forward, client = 1e6 * sum(self.forwards), 1e6 * self.client
        return f"{self.sequences:9d} {forward:9.0f} {parts} {self.share:8.1%} {client:9.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 and 32 sequences alone")
    numbers = (8, 8, 32) if parser.parse_args().quick else (8, 8, 32, 128, MOST)
    torch.set_num_threads(1)
    model = Model(max_len=MAX_LEN)
    half = model.layers // 2
    cut = Cut(RING, (half, model.layers - half), ((0,), (1,)), 2 * MOST)
    print(f"llama, hidden {model.hidden}, {model.layers} layers, float32; two stages, two groups\n")
    print("us a step                CPU beyond forward")
    print("sequences   forward  stage 0  stage 1   router    share    client")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        folder = Path(scratch)
        checkpoint = model.save(folder / "model")
        address = running.enter_context(pipeline(cut, checkpoint, folder))
        leader = LeaderClient(address)
        leader.wait_ready()
        door = DoorClient(running.enter_context(router(cut, address, checkpoint, folder)))
        door.wait_ready()
        rows = []
        for sequences in numbers:
            rows.append(measured(sequences, leader, door))
            if len(rows) > 1:  # the first paid for what is made lazily
                print(rows[-1], flush=True)
    eight, most = rows[1], rows[-1]
    each = (sum(most.beyond) - sum(eight.beyond)) / (most.sequences - eight.sequences)
    print(f"\none sequence more: {1e6 * each:.1f} us a step")
    print(f"target: {TARGET_SEQUENCES} sequences: a share of {TARGET:.0%} at most")


def measured(sequences: int, leader: LeaderClient, door: DoorClient) -> Row:
    """One row; a group has so many `sequences`."""
    window = Window()
    made = [0] * (2 * sequences)
    for requests in door.generate(prompts(2 * sequences, PROMPT), TOKENS):
        for request in requests:
            made[request] += 1
        if min(made) > 1 and max(made) < TOKENS:
            window.open()
        elif max(made) == TOKENS:
            window.close()
    return window.row(sequences, leader.trace())


class Window:
    """From when all sequences decode until the first one ends."""

    def __init__(self) -> None:
        self._processes = {name: child(name) for name in (*STAGES, ROUTER)}
        self._before: dict[str, Threads] = {}
        self._spent: dict[str, Threads] = {}
        self._own = self._began = self._ended = 0.0

    def open(self) -> None:
        if not self._before:
            self._before, self._own = self._look(), time.process_time()
            self._began = time.monotonic()

    def close(self) -> None:
        if not self._spent:
            self._ended = time.monotonic()
            self._own = time.process_time() - self._own
            self._spent = {name: now - self._before[name] for name, now in self._look().items()}

    def row(self, sequences: int, traces: list[pb.StageTrace]) -> Row:
        """Steps are counted, and their forward passes timed, by the stages (on one clock here)."""
        seconds = [self._computing(trace) for trace in traces]
        steps = [len(each) for each in seconds]
        spent = [self._spent[name] for name in STAGES]
        return Row(
            sequences,
            tuple(one.cpu / count for one, count in zip(spent, steps, strict=True)),
            tuple(
                (sum(each) - one.waited) / len(each)
                for one, each in zip(spent, seconds, strict=True)
            ),
            self._spent[ROUTER].cpu / steps[0],
            self._own / steps[0],
        )

    def _computing(self, trace: pb.StageTrace) -> list[float]:
        ended = [span for span in trace.spans if self._began < span.end < self._ended]
        return [span.end - span.begin for span in ended]

    def _look(self) -> dict[str, Threads]:
        return {name: Threads.of(process) for name, process in self._processes.items()}


def child(document: str) -> int:
    """The process that was started with this document."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"\nPPid:\t{os.getpid()}\n" in (entry / "status").read_text()
            if mine and f"/{document}.json" in (entry / "cmdline").read_text():
                return int(entry.name)
        except OSError:  # it has ended meanwhile
            continue
    raise RuntimeError(f"no process was started with {document}.json")


if __name__ == "__main__":
    main()
