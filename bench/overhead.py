"""What a step costs beyond the model's own forward pass, by the number of sequences in it.

Two stages of a random Llama, a core each, two groups in flight, behind the router. `forward` is the
CPU time in which both stages, in this process and alone, compute a group's step. `stage 0` (with
the leader), `stage 1` and `router` are the CPU time that their processes take for a step beyond
that, every thread included, while a client of the front door reads its stream. `share` is all that
is beyond, of the whole. The client's own CPU time, none of the engine's, stands beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import torch
from cost import cpu_seconds
from pipelines import Cut, DoorClient, LeaderClient, Model, pipeline, prompts, router

from stageline_worker.microbatch import Microbatch, Sampling, Segment
from stageline_worker.model import load
from stageline_worker.model.stage import Stage

PROMPT, MAX_LEN, MOST, STEPS = 4, 128, 256, 12
IDS = "input_ids"
TARGET_SEQUENCES, TARGET = 8, 0.08
RING = "ring"
SECONDS_EACH, QUICK_SECONDS = 6.0, 2.0
PARTS = {"stage 0": f"{RING}-0", "stage 1": f"{RING}-1", "router": f"{RING}-router"}
ENTERS = {IDS: torch.ones(1, 1, dtype=torch.int64), "hidden_states": torch.ones(1, 1, 512)}
Generate = Callable[[list[list[int]], int], Iterator[list[int]]]


@dataclass(frozen=True)
class Row:
    """Microseconds of a step of one group: the stages' forward passes, CPU time beyond by part."""

    sequences: int
    forwards: tuple[float, float]
    beyond: dict[str, float]
    client: float

    @property
    def share(self) -> float:
        cost = sum(self.beyond.values())
        return cost / (cost + sum(self.forwards))

    def __str__(self) -> str:
        parts = " ".join(f"{us:8.0f}" for us in self.beyond.values())
        forward = sum(self.forwards)
        return f"{self.sequences:9d} {forward:9.0f} {parts} {self.share:8.1%} {self.client:9.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="for a third of the time")
    seconds = QUICK_SECONDS if parser.parse_args().quick else SECONDS_EACH
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
        leader = running.enter_context(pipeline(cut, checkpoint, folder))
        LeaderClient(leader).wait_ready()
        door = DoorClient(running.enter_context(router(cut, leader, checkpoint, folder)))
        door.wait_ready()
        stages = [
            load(
                f"file://{checkpoint}",
                layers,
                device="cpu",
                max_model_len=MAX_LEN,
                max_sequences=MOST,
            )
            for layers in ((0, half), (half, model.layers))
        ]
        rows = []
        for sequences in (8, 8, 32, 128, MOST):
            rows.append(measured(sequences, seconds, stages, door))
            if len(rows) > 1:  # the first paid for what is made lazily
                print(rows[-1], flush=True)
    eight, most = rows[1], rows[-1]
    each = sum(most.beyond.values()) - sum(eight.beyond.values())
    print(f"\none sequence more: {each / (most.sequences - eight.sequences):.1f} us a step")
    print(f"target: {TARGET_SEQUENCES} sequences: a share of {TARGET:.0%} at most")


def measured(sequences: int, seconds: float, stages: Sequence[Stage], door: DoorClient) -> Row:
    """One row; a group has so many `sequences`."""
    first, second = (
        forward_seconds(stage, *enters, sequences)
        for stage, enters in zip(stages, ENTERS.items(), strict=True)
    )
    count = min(max(int(seconds / (first + second)), 12), MAX_LEN - PROMPT)
    processes = {name: child(document) for name, document in PARTS.items()}
    before: dict[str, float] = {}
    own = made = 0.0
    for tokens in decoding(door.generate, 2 * sequences, count):
        if before:
            made += tokens
        else:
            before, own = cpu_of(processes), time.process_time()
    after, own = cpu_of(processes), time.process_time() - own
    steps = made / sequences
    beyond = {name: (after[name] - before[name]) / steps for name in processes}
    beyond["stage 0"] -= first
    beyond["stage 1"] -= second
    us = {name: 1e6 * value for name, value in beyond.items()}
    return Row(sequences, (1e6 * first, 1e6 * second), us, 1e6 * own / steps)


def forward_seconds(stage: Stage, name: str, entering: torch.Tensor, sequences: int) -> float:
    """CPU time in which a stage computes a step when it does nothing else: the median of some.

    `entering` is what a token enters as, [1, 1] or [1, 1, hidden]; its values do not matter.
    """
    spent = []
    with torch.inference_mode():
        for start, count in ((0, PROMPT), *((PROMPT + step, 1) for step in range(STEPS))):
            draw = Sampling(0, start + count)
            segments = tuple(Segment(slot, start, count, draw) for slot in range(sequences))
            tokens = entering.expand(1, sequences * count, *entering.shape[2:]).contiguous()
            microbatch = Microbatch({name: tokens[0] if name == IDS else tokens}, segments)
            began = time.process_time()
            stage.forward(microbatch)
            spent.append(time.process_time() - began)
    stage.reset()
    return statistics.median(spent[2:])


def decoding(generate: Generate, sequences: int, count: int) -> Iterator[int]:
    """Tokens as they come, from when all sequences decode until the first one ends."""
    made = [0] * sequences
    for requests in generate(prompts(sequences, PROMPT), count):
        for request in requests:
            made[request] += 1
        if min(made) > 1 and max(made) < count:
            yield len(requests)


def cpu_of(processes: dict[str, int]) -> dict[str, float]:
    return {name: cpu_seconds(process) for name, process in processes.items()}


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
