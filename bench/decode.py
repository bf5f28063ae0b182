"""Decode over two stages against the same engine on one core, in one run.

A second device has room for the KV cache of as many sequences again, so the pipeline is compared
at equal KV memory per device: two groups of 16 on two stages against 16 on one core. The same at
equal sequences, and what a model that fits one machine should use: one process, two threads.
Beside them transformers' own `generate`. Rounds are interleaved; ratios are medians of each
round's ratio. Only tokens made while every sequence was decoding are counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import torch
from pipelines import Cut, DoorClient, LeaderClient, Model, pinned, pipeline, prompts, router

from stageline.v1 import pipeline_pb2 as pb

PROMPT = 32
GROUP = 16
TARGET_RATIO, TARGET_SHARE = 1.8, 0.93


@dataclass(frozen=True)
class Size:
    """How long a round is, and how many there are."""

    tokens: int
    rounds: int


FULL, QUICK = Size(tokens=96, rounds=7), Size(tokens=40, rounds=2)


@dataclass
class Measured:
    """Tokens a second of each form, a figure for each round, and the ring's bound beside them."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    bounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, rate: float, bound: float | None = None) -> None:
        self.rates.setdefault(name, []).append(rate)
        if bound is not None:
            self.bounds.setdefault(name, []).append(bound)

    def ratio(self, name: str, base: str) -> float:
        return median(a / b for a, b in zip(self.rates[name], self.rates[base], strict=True))

    def share(self, name: str) -> float | None:
        if name not in self.bounds:
            return None
        return median(a / b for a, b in zip(self.rates[name], self.bounds[name], strict=True))


ONE, TWO_THREADS = "1 core, 16", "2 threads, 32"
RING, RING_ROUTER, RING_EQUAL = "2 stages, 32", "2 stages, 32, router", "2 stages, 16"
LIBRARY = "transformers, 1 core, 32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a first look")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--transport", default="auto", help="of the ring's links")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    model = Model(layers=arguments.layers)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        show(model, size, measure(model, size, arguments.transport, Path(folder), running))


def measure(model: Model, size: Size, transport: str, folder: Path, running: ExitStack) -> Measured:
    checkpoint = model.save(folder / "model")
    half = (model.layers + 1) // 2  # the head costs about as much as a layer
    cuts = {
        ONE: Cut("one", (model.layers,), ((0,),), GROUP),
        TWO_THREADS: Cut("threads", (model.layers,), ((0, 1),), 2 * GROUP),
        RING: Cut("ring", (half, model.layers - half), ((0,), (1,)), 2 * GROUP, transport),
    }
    leaders = {
        name: running.enter_context(pipeline(cut, checkpoint, folder)) for name, cut in cuts.items()
    }
    clients = {name: LeaderClient(leader) for name, leader in leaders.items()}
    for client in clients.values():
        client.wait_ready()
    door = DoorClient(running.enter_context(router(cuts[RING], leaders[RING], checkpoint, folder)))
    door.wait_ready()
    library = Library(checkpoint)
    measured = Measured()
    for number in range(-1, size.rounds):  # the first pays for what is made lazily
        one_round(size if number >= 0 else QUICK, clients, door, library, measured)
        if number < 0:
            measured = Measured()
    print_links(clients[RING])
    return measured


def one_round(
    size: Size,
    clients: dict[str, LeaderClient],
    door: DoorClient,
    library: Library,
    measured: Measured,
) -> None:
    ring = clients[RING]
    measured.add(ONE, rate(clients[ONE].generate, GROUP, size))
    measured.add(RING, *with_bound(ring, GROUP, lambda: rate(ring.generate, 2 * GROUP, size)))
    measured.add(
        RING_ROUTER, *with_bound(ring, GROUP, lambda: rate(door.generate, 2 * GROUP, size))
    )
    measured.add(
        RING_EQUAL, *with_bound(ring, GROUP // 2, lambda: rate(ring.generate, GROUP, size))
    )
    measured.add(TWO_THREADS, rate(clients[TWO_THREADS].generate, 2 * GROUP, size))
    measured.add(LIBRARY, library.rate(2 * GROUP, size))


def with_bound(ring: LeaderClient, group: int, work: Callable[[], float]) -> tuple[float, float]:
    """The rate, and what a ring could make of it that waits for nothing but its slower stage.

    Of the stages' own clocks, over the microbatches in which a whole group decoded.
    """
    before = [stage.now for stage in ring.trace()]
    found = work()
    slowest = max(
        statistics.mean(
            span.end - span.begin
            for span in stage.spans
            if span.begin > since and (span.kind, span.sequences) == (pb.SPAN_DECODE, group)
        )
        for since, stage in zip(before, ring.trace(), strict=True)
    )
    return found, group / slowest


def rate(
    generate: Callable[[list[list[int]], int], Iterator[list[int]]], sequences: int, size: Size
) -> float:
    """Tokens a second from when all sequences decode until the first one ends."""
    made = [0] * sequences
    began, counted, last = 0.0, 0, 0.0
    for requests in generate(prompts(sequences, PROMPT), size.tokens):
        now = time.perf_counter()
        for request in requests:
            made[request] += 1
        if began and max(made) < size.tokens:
            counted += len(requests)
            last = now
        elif not began and min(made) > 1:
            began = now
    return counted / (last - began)


class Library:
    """transformers' `generate`, on core 0."""

    def __init__(self, checkpoint: Path) -> None:
        from transformers import LlamaForCausalLM

        torch.set_num_threads(1)
        self._model = LlamaForCausalLM.from_pretrained(checkpoint)

    def rate(self, sequences: int, size: Size) -> float:
        """Tokens a second of decoding alone: the time of the prompt and one token is taken off."""
        with pinned((0,)):
            first, all_of_them = self._seconds(sequences, 1), self._seconds(sequences, size.tokens)
        return sequences * (size.tokens - 1) / (all_of_them - first)

    def _seconds(self, sequences: int, tokens: int) -> float:
        ids = torch.tensor(prompts(sequences, PROMPT))
        began = time.perf_counter()
        self._model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        return time.perf_counter() - began


def print_links(ring: LeaderClient) -> None:
    report: pb.PipelineReport = ring.report(lambda report: True)
    for stage in report.stages:
        print(
            f"stage {stage.stage}: layers {stage.first_layer}-{stage.end_layer - 1}, "
            f"compute {1000 * stage.compute_seconds:.1f} ms a microbatch, link {stage.transport}"
        )


def show(model: Model, size: Size, measured: Measured) -> None:
    print(
        f"llama, hidden {model.hidden}, {model.layers} layers, float32; prompts of {PROMPT}, "
        f"{size.tokens} tokens each; {size.rounds} rounds\n"
    )
    print(f"| form | tokens/s | x {ONE} | share of the bound |")
    print("| --- | --- | --- | --- |")
    for name, rates in measured.rates.items():
        share = measured.share(name)
        shown = "" if share is None else f"{share:.2f}"
        print(f"| {name} | {median(rates):.0f} | {measured.ratio(name, ONE):.2f} | {shown} |")
    print(f"\ntargets: {RING_ROUTER}: {TARGET_RATIO} x and {TARGET_SHARE} of the bound")


def median(values: Iterator[float] | list[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
