"""The ring over two processes against the same model uncut in one, in one run.

Each stage is a process pinned to a core, with one thread; the uncut model has one core and one
thread too. Both compute the same microbatches of inference; `decode.py` compares generation.
Rounds are interleaved, figures are medians over rounds, ratios are medians of each round's ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import torch
from pipelines import VOCABULARY, Cut, LeaderClient, Model, pipeline, prompts

from stageline.v1 import pipeline_pb2 as pb
from stageline_worker.channel import keep_large_blocks
from stageline_worker.microbatch import Microbatch
from stageline_worker.model import load

MODEL = Model(layers=8)
# The head costs about as much as a layer.
CUT = Cut("ring", partition=(4, 4), cores=((0,), (1,)), sequences=8)
PROMPT = 32


@dataclass(frozen=True)
class Size:
    """How long a round is, and how many there are."""

    tokens: int
    microbatches: int
    rounds: int


FULL, QUICK = Size(tokens=48, microbatches=60, rounds=7), Size(24, 30, rounds=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for CI")
    size = QUICK if parser.parse_args().quick else FULL
    keep_large_blocks()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = MODEL.save(Path(scratch) / "model")
        with pipeline(CUT, checkpoint, Path(scratch)) as leader:
            client = LeaderClient(leader)
            client.wait_ready()
            print(f"model: llama, hidden {MODEL.hidden}, {MODEL.layers} layers, float32, random")
            print(f"ring: 2 processes, layers {CUT.partition}; uncut: 1; a core and a thread each")
            show_inference(size, client, uncut(checkpoint))
            show_hops(size, client)


def uncut(checkpoint: Path) -> Callable[[torch.Tensor, int], None]:
    """The whole model, called directly on core 0: no frames, no threads, no scheduler."""
    torch.set_num_threads(1)
    stage = load(f"file://{checkpoint}", (0, MODEL.layers), device="cpu")

    def infer(rows: torch.Tensor, microbatches: int) -> None:
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {0})
        for _ in range(microbatches):
            stage.forward(Microbatch({"input_ids": rows}))
        os.sched_setaffinity(0, everywhere)

    return infer


def show_inference(
    size: Size, client: LeaderClient, infer: Callable[[torch.Tensor, int], None]
) -> None:
    rows = torch.randint(3, VOCABULARY, (1, PROMPT))
    rates: tuple[list[float], list[float]] = ([], [])
    for work in (client.infer, infer):
        work(rows, 1)  # once for what is made lazily
    for _ in range(size.rounds):
        for work, found in zip((client.infer, infer), rates, strict=True):
            began = time.perf_counter()
            work(rows, size.microbatches)
            found.append(size.microbatches / (time.perf_counter() - began))
    ratio = statistics.median(a / b for a, b in zip(*rates, strict=True))
    ring, whole = map(statistics.median, rates)
    print(f"inference: ring {ring:.1f} microbatches/s, uncut {whole:.1f}, ratio {ratio:.2f}")


def show_hops(size: Size, client: LeaderClient) -> None:
    """One sequence alone: what a token takes beyond the stages' compute, by hop."""
    overheads, computes = [], []
    report = client.wait_ready()
    for _ in range(3 * size.rounds):
        count = report.stages[0].microbatches + size.tokens
        times = [time.perf_counter() for _ in client.generate(prompts(1, PROMPT), size.tokens)]
        report = client.report(computed(count))
        computes.append(sum(stage.compute_seconds for stage in report.stages))
        overheads.append((averaged(times) - computes[-1]) / len(report.stages))
    reported = [f"{1000 * stage.hop_seconds:.2f}" for stage in report.stages]
    carried = " and ".join(stage.transport for stage in report.stages)
    print(f"one sequence alone: compute {1000 * statistics.median(computes):.2f} ms a token in all")
    print(
        f"overhead per hop over {carried}: {1000 * statistics.median(overheads):.2f} ms, "
        f"scheduling included (the links report {' and '.join(reported)} ms, there and back)"
    )


def averaged(times: list[float]) -> float:
    """Seconds from one token to the next, averaged as stages average their compute_seconds."""
    average = 0.0
    for before, after in pairwise(times):
        average += (0.1 if average else 1.0) * (after - before - average)
    return average


def computed(microbatches: int) -> Callable[[pb.PipelineReport], bool]:
    return lambda report: all(stage.microbatches >= microbatches for stage in report.stages)


if __name__ == "__main__":
    main()
