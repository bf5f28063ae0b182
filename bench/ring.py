"""The ring over two processes against the same model uncut in one, in one run.

Each stage is a process pinned to a core, with one thread; the uncut model has one core and one
thread too. Both compute the same microbatches: one sequence each, several at once in the ring.
Rounds are interleaved, figures are medians over rounds, ratios are medians of each round's ratio.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import torch

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_api.documents import StageDocument
from stageline_wire import Frame, Kind, decode, encode
from stageline_worker.channel import keep_large_blocks, open_channel
from stageline_worker.microbatch import Microbatch, Sampling, Segment
from stageline_worker.model import Stage, load
from stageline_worker.tensors import to_view

VOCABULARY = 8000
PROMPT = 32
INFER_SHAPE = (1, 32)


@dataclass(frozen=True)
class Size:
    """How large the model is, and how long a round."""

    hidden: int
    layers: int
    sequences: int
    tokens: int
    microbatches: int
    rounds: int


FULL = Size(hidden=512, layers=8, sequences=8, tokens=48, microbatches=60, rounds=7)
QUICK = Size(hidden=512, layers=8, sequences=8, tokens=24, microbatches=30, rounds=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for CI")
    size = QUICK if parser.parse_args().quick else FULL
    keep_large_blocks()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(size, Path(folder) / "model")
        with ring(size, checkpoint, Path(folder)) as leader:
            run(size, Router(leader), Uncut(checkpoint, size))


def run(size: Size, router: Router, uncut: Uncut) -> None:
    report = router.wait_ready()
    print(f"model: llama, hidden {size.hidden}, {size.layers} layers, float32, random weights")
    print(f"ring: 2 processes, layers {[s.end_layer - s.first_layer for s in report.stages]}; "
          f"{size.sequences} sequences of {PROMPT} + {size.tokens} tokens; "
          f"uncut: 1 process; 1 core and 1 thread each; {size.rounds} rounds")  # fmt: skip
    for measure in (router.generate, uncut.generate, router.infer, uncut.infer):
        measure(size, 1)  # once for what is made lazily
    rounds = [one_round(size, router, uncut) for _ in range(size.rounds)]
    show_rates(rounds)
    show_hops(size, router)


@dataclass(frozen=True)
class Round:
    """Rates a second, and the slower stage's seconds for one microbatch of generation."""

    ring_tokens: float
    uncut_tokens: float
    ring_microbatches: float
    uncut_microbatches: float
    share_of_bound: float


def one_round(size: Size, router: Router, uncut: Uncut) -> Round:
    before = router.report().stages[0].microbatches
    ring_tokens = rate(lambda: router.generate(size, size.sequences))
    after = router.report(before + size.sequences * size.tokens)
    # The ring can be no faster than its slower stage computes.
    slowest = max(stage.compute_seconds for stage in after.stages)
    return Round(
        ring_tokens,
        rate(lambda: uncut.generate(size, size.sequences)),
        rate(lambda: router.infer(size, size.microbatches)),
        rate(lambda: uncut.infer(size, size.microbatches)),
        ring_tokens * slowest,
    )


def rate(work: Callable[[], int]) -> float:
    began = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - began)


def show_rates(rounds: list[Round]) -> None:
    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(map(value, rounds))

    def row(name: str, unit: str, ring: str, uncut: str) -> None:
        a, b = (median(lambda r, k=key: getattr(r, k)) for key in (ring, uncut))
        x = median(lambda r: getattr(r, ring) / getattr(r, uncut))
        print(f"{name:12} ring {a:8.1f} {unit:16} uncut {b:8.1f} {unit:16} ratio {x:.2f}")

    print()
    row("generation", "tokens/s", "ring_tokens", "uncut_tokens")
    row("inference", "microbatches/s", "ring_microbatches", "uncut_microbatches")
    bound = median(lambda r: r.share_of_bound)
    print(f"generation reaches {bound:.2f} of what the slower stage alone could compute")


def show_hops(size: Size, router: Router) -> None:
    """One sequence alone: what a token takes beyond the stages' compute, by hop."""
    overheads, computes = [], []
    for _ in range(3 * size.rounds):
        before = router.report().stages[0].microbatches
        seconds = router.inter_token_seconds(size.tokens)
        after = router.report(before + size.tokens)
        computes.append(sum(stage.compute_seconds for stage in after.stages))
        overheads.append((seconds - computes[-1]) / len(after.stages))
    reported = [f"{1000 * stage.hop_seconds:.2f}" for stage in after.stages]
    print()
    print(f"one sequence alone: compute {1000 * statistics.median(computes):.2f} ms a token in all")
    print(
        f"overhead per hop: {1000 * statistics.median(overheads):.2f} ms, scheduling included "
        f"(the links report {' and '.join(reported)} ms, there and back)"
    )


class Uncut:
    """The whole model, called directly: no frames, no threads, no scheduler. On core 0."""

    def __init__(self, checkpoint: Path, size: Size) -> None:
        torch.set_num_threads(1)
        self._stage: Stage = load(
            f"file://{checkpoint}", (0, size.layers), device="cpu", max_sequences=size.sequences
        )

    def generate(self, size: Size, sequences: int) -> int:
        os.sched_setaffinity(0, {0})
        last = [self._step(n, 0, prompt(n), PROMPT) for n in range(sequences)]
        for position in range(PROMPT, PROMPT + size.tokens - 1):
            for n in range(sequences):
                last[n] = self._step(n, position, [last[n]], position + 1)
        return sequences * size.tokens

    def infer(self, size: Size, microbatches: int) -> int:
        os.sched_setaffinity(0, {0})
        for n in range(microbatches):
            self._stage.forward(Microbatch({"input_ids": rows(n)}))
        return microbatches

    def _step(self, slot: int, start: int, tokens: list[int], position: int) -> int:
        segment = Segment(slot, start, len(tokens), Sampling(seed=0, position=position))
        entering = Microbatch({"input_ids": torch.tensor(tokens)}, (segment,))
        return int(self._stage.forward(entering).tensors["tokens"][0])


class Router:
    """The front end reduced to one Serve stream and the report."""

    def __init__(self, leader: str) -> None:
        self._channel = open_channel(leader)
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        stream = self._channel.stream_stream("/stageline.v1.Pipeline/Serve")
        self._frames = stream(iter(self._outgoing.get, None), wait_for_ready=True)

    def report(self, microbatches: int = 0) -> pb.PipelineReport:
        """The first report in which every stage has computed that many microbatches."""
        return self._wait(lambda r: all(s.microbatches >= microbatches for s in r.stages))

    def wait_ready(self) -> pb.PipelineReport:
        return self._wait(lambda report: report.state == pb.READY)

    def generate(self, size: Size, sequences: int) -> int:
        for n in range(sequences):
            self._ask(n, prompt(n), size.tokens)
        return len(list(self._tokens(sequences)))

    def inter_token_seconds(self, tokens: int) -> float:
        """From one token to the next, averaged as stages average their compute_seconds."""
        self._ask(0, prompt(0), tokens)
        average = 0.0
        for before, after in pairwise(self._tokens(1)):
            average += (0.1 if average else 1.0) * (after - before - average)
        return average

    def infer(self, size: Size, microbatches: int) -> int:
        for n in range(microbatches):
            ids = to_view("input_ids", rows(n))
            self._send(Frame(Kind.INFER, meta={"id": n}, tensors=(ids,)))
        for _ in range(microbatches):
            frame = decode(next(self._frames))
            assert frame.kind is Kind.ANSWER, frame.meta
        return microbatches

    def _ask(self, request: int, tokens: list[int], count: int) -> None:
        meta = {"id": request, "max_tokens": count, "ignore_eos": True}
        ids = to_view("input_ids", torch.tensor(tokens))
        self._send(Frame(Kind.GENERATE, meta=meta, tensors=(ids,)))

    def _tokens(self, sequences: int) -> Iterator[float]:
        """The time at which each token of these sequences came."""
        while sequences:
            frame = decode(next(self._frames))
            now = time.perf_counter()
            assert frame.kind is Kind.TOKENS, frame.meta
            for _, _, finish in frame.meta["tokens"]:
                sequences -= finish is not None
                yield now

    def _wait(self, condition: Callable[[pb.PipelineReport], bool]) -> pb.PipelineReport:
        stub = services.PipelineStub(self._channel)
        reports = stub.Watch(pb.WatchRequest(), wait_for_ready=True, timeout=60)
        for report in reports:
            if condition(report):
                reports.cancel()
                return report
        raise RuntimeError("the leader ended its reports")

    def _send(self, frame: Frame) -> None:
        self._outgoing.put(b"".join(encode(frame)))


def prompt(seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    found: list[int] = torch.randint(3, VOCABULARY, (PROMPT,), generator=generator).tolist()
    return found


def rows(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, INFER_SHAPE, generator=generator)


def make_checkpoint(size: Size, folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=size.hidden, num_hidden_layers=size.layers,
        intermediate_size=size.hidden * 11 // 4, num_attention_heads=8, num_key_value_heads=4,
        max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@contextmanager
def ring(size: Size, checkpoint: Path, folder: Path) -> Iterator[str]:
    """Two stages, pinned to cores 0 and 1; gives the leader's address."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    head = 1  # the head costs about as much as a layer
    half = (size.layers + head) // 2
    processes = []
    try:
        for stage in range(2):
            document = StageDocument(
                model="llama", pipeline="llama-0", revision="bench", plan_hash="bench", stage=stage,
                partition=(half, size.layers - half), uri=f"file://{checkpoint}", device="cpu",
                max_sequences=size.sequences, addresses=addresses, listen=addresses[stage],
            )  # fmt: skip
            path = folder / f"stage-{stage}.json"
            path.write_text(document.model_dump_json())
            processes.append(start(path, core=stage))
        yield addresses[0]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def start(document: Path, core: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "stageline_worker", "stage", "--document", str(document)]
    return subprocess.Popen(
        command,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


if __name__ == "__main__":
    main()
