"""What the leader and the ring cost beside the model, a step, by the number of sequences.

The stages compute nothing. `leader`: from a step's tokens to the next step and the frame for the
router, CPU time. `frames`: a step's way over one hop as bytes, written and read, CPU time. `ring`:
two stages as processes and the link that they choose, wall time of a step of one group; what else
runs on the machine disturbs it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import torch
from pipelines import LeaderClient, free_ports
from workers import workers

from stageline_api.documents import StageDocument
from stageline_wire import Frame, Kind, decode, encode
from stageline_worker.leader.desk import Desk, Entry
from stageline_worker.leader.outbox import Outbox
from stageline_worker.leader.pace import Pace
from stageline_worker.leader.scheduler import Limits, Scheduler
from stageline_worker.microbatch import Microbatch, ModelInfo, TensorSpec
from stageline_worker.ring.messages import Passing, frame_of, read_passing
from stageline_worker.tensors import to_view
from stageline_worker.timing import Timing

SEQUENCES = (1, 8, 32, 64, 128, 256)
LINE = "{:9d}  {:6.0f}  {:7.0f}    {:6.0f}  {:7.0f}    {:14.0f}"
EACH = " {:6.1f}  {:7.1f}    {:6.1f}  {:7.1f}    {:14.1f}"
HIDDEN = 512
MAX_LEN = 1 << 20
GREEDY: dict[str, object] = {}
SAMPLED: dict[str, object] = {"temperature": 0.8, "top_p": 0.9, "top_k": 50, "seed": 7}


class NoModel:
    """A stage that computes nothing: hidden states are zeros, and so is every token."""

    device, dtype, packs = "cpu", "float32", True

    def __init__(self, document: StageDocument) -> None:
        self._last = document.stage == document.stages - 1
        self.kv_tokens = document.max_sequences * MAX_LEN

    @property
    def info(self) -> ModelInfo:
        ids = TensorSpec("input_ids", "INT64", (-1, -1), limit=1000)
        output = TensorSpec("hidden_states", "FP32", (-1, -1, HIDDEN))
        return ModelInfo("NoModel", True, 2, 1000, MAX_LEN, (), 0, False, (ids,), (output,))

    def forward(self, microbatch: Microbatch) -> Microbatch:
        tokens = sum(segment.count for segment in microbatch.segments) or 1
        tensors = {"hidden_states": torch.zeros(1, tokens, HIDDEN)}
        if self._last and microbatch.segments:
            draws = sum(segment.sampling is not None for segment in microbatch.segments)
            tensors = {"tokens": torch.zeros(draws, dtype=torch.int64)}
        return Microbatch(tensors, microbatch.segments, microbatch.outputs)

    def reset(self) -> None:
        pass

    def canary(self) -> Microbatch:
        return Microbatch({"input_ids": torch.zeros((1, 1), dtype=torch.int64)})


def load(document: StageDocument, progress: Callable[[int, int], None]) -> NoModel:
    return NoModel(document)


def document(stage: int, addresses: tuple[str, ...], sequences: int) -> StageDocument:
    return StageDocument.model_validate({
        "model": "none", "pipeline": "none", "revision": "bench", "plan_hash": "bench",
        "stage": stage, "partition": (1,) * len(addresses), "uri": "file:///none", "device": "cpu",
        "max_sequences": sequences, "addresses": addresses, "listen": addresses[stage],
    })  # fmt: skip


def generate(request: int, options: dict[str, object]) -> Frame:
    meta = {"id": request, "max_tokens": MAX_LEN // 2, "ignore_eos": True, **options}
    return Frame(Kind.GENERATE, meta=meta, tensors=(to_view("input_ids", torch.tensor([1, 2])),))


@dataclass(slots=True)
class Leader:
    """A desk without a ring: what enters comes back at once."""

    desk: Desk
    said: Iterator[Frame]

    @classmethod
    def decoding(cls, sequences: int, options: dict[str, object]) -> Leader:
        """With so many sequences, all of them past their prompts."""
        desk, outbox = Desk("none", Timing(), lambda: None), Outbox()
        model = NoModel(document(0, ("127.0.0.1:1",), sequences))
        limits = Limits(
            slots=sequences, kv_tokens=model.kv_tokens, max_len=MAX_LEN, chunk=512, groups=1,
            in_flight=2, max_waiting=1024,
        )  # fmt: skip
        desk.serve(model.info, Scheduler(limits, Pace(2.0)))
        for request in range(sequences):
            desk.submit(generate(request, options), outbox)
        desk.begin(1, model.canary(), lambda error: None)
        leader = cls(desk, outbox.frames())
        leader.back(leader.enter())
        desk.admit()
        while (entry := leader.enter()).microbatch.tensors["input_ids"].numel() != sequences:
            leader.back(entry)
        leader.back(entry)
        return leader

    def enter(self) -> Entry:
        entry = self.desk.next(1)
        assert entry is not None
        return entry

    def back(self, entry: Entry) -> None:
        draws = sum(segment.sampling is not None for segment in entry.microbatch.segments)
        tokens = torch.zeros(draws, dtype=torch.int64)
        self.desk.returned(1, entry.sequence, Microbatch({"tokens": tokens}), 0.01)

    def step(self) -> None:
        """One step, and the frame of its tokens as bytes."""
        self.back(self.enter())
        b"".join(encode(next(self.said)))


def a_hop(sequences: int, options: dict[str, object]) -> Callable[[], None]:
    """A step's frame written and read."""
    entry = Leader.decoding(sequences, options).enter()
    hidden = {"hidden_states": torch.zeros(1, sequences, HIDDEN)}
    passing = Passing(Microbatch(hidden, entry.microbatch.segments))

    def hop() -> None:
        message = b"".join(encode(frame_of(Kind.MICROBATCH, 1, 1, passing)))
        read_passing(decode(message))

    return hop


def microseconds(call: Callable[[], None], repeats: int) -> float:
    """CPU time of one call: the median of five rounds."""
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(repeats):
            call()
        rounds.append((time.process_time() - began) / repeats * 1e6)
    return statistics.median(rounds)


@contextmanager
def ring(sequences: int) -> Iterator[LeaderClient]:
    """Two stages that compute nothing, as processes."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    with workers([document(stage, addresses, sequences) for stage in range(2)], load) as leader:
        client = LeaderClient(leader)
        client.wait_ready()
        yield client


def ring_microseconds(client: LeaderClient, sequences: int, tokens: int) -> float:
    """Wall time of the ring's step: both groups pass once in the time of a token of each."""
    began = 0.0
    for n, _ in enumerate(client.generate([[1, 2]] * sequences, tokens)):
        if n == 0:
            began = time.perf_counter()
    groups = min(2, sequences)
    return (time.perf_counter() - began) / ((tokens - 1) * groups) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    repeats = 50 if parser.parse_args().quick else 300
    torch.set_num_threads(1)
    print("us a step      leader          frames (one hop)     ring, two stages")
    print("sequences  greedy  sampled    greedy  sampled    a group's step")
    rows: list[list[float]] = []
    with ring(2 * max(SEQUENCES)) as client:
        for sequences in SEQUENCES:
            figures = [
                microseconds(make(sequences, options), repeats)
                for make in (lambda n, o: Leader.decoding(n, o).step, a_hop)
                for options in (GREEDY, SAMPLED)
            ]
            figures.append(ring_microseconds(client, 2 * sequences, repeats))
            print(LINE.format(sequences, *figures), flush=True)
            rows.append(figures)
    each = [(most - one) / (SEQUENCES[-1] - 1) for one, most in zip(rows[0], rows[-1], strict=True)]
    print(f"one more  {EACH.format(*each)}")


if __name__ == "__main__":
    main()
