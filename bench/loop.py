"""A decode loop with feedback over two stages, against torch.distributed.pipelining.

Two processes pinned to a core each. A stage is 8 times Linear 512 + GELU on 64 rows, a few ms. M
microbatches are on their way; each enters the first stage again when what the last one made of it
is back, as a decoded token does. No loop can take less than max(M, stages) times the slower stage's
compute a step, and one more for the last stage's first; what the first stage makes of tokens and
the last one of activations is compute too. torch.distributed.pipelining (ScheduleGPipe over gloo)
knows no feedback: it makes a step of all M, then the outputs go back. Rounds are interleaved;
figures are medians over rounds, ratios medians of each round's ratio.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

import torch
import torch.distributed as dist
from pair import LINKS, SESSION, Links, beside, pin
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

from stageline_wire import Frame, Kind
from stageline_worker.tensors import from_view, to_view
from stageline_worker.transport import Inlet, Outlet

ROWS: Final = 64
WIDTH: Final = 512
LAYERS: Final = 8
STAGES: Final = 2
IN_FLIGHT: Final = (2, 4, 8)
TORCH: Final = "torch"
TARGETS: Final = {"unix": (0.95, 1.6), "socket": (0.95, 1.6), "grpc": (0.80, 1.3)}
MOST_OVERHEAD: Final = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for CI")
    quick = parser.parse_args().quick
    rounds, steps = (3, 25) if quick else (9, 60)
    pin(0)
    with beside(last_stage, 1) as child, torch.inference_mode():
        first = First(child)
        for in_flight in IN_FLIGHT:
            turns: dict[str, list[Turn]] = {way: [] for way in (*LINKS, TORCH)}
            for n in range(rounds + 1):
                for way in turns:
                    turn = first.turn(way, in_flight, steps)
                    if n:  # the first round is for what is made lazily
                        turns[way].append(turn)
            show(in_flight, turns)
        first.stop()


@dataclass(frozen=True)
class Turn:
    """One run of the loop: its seconds, and the slower stage's for one microbatch."""

    seconds: float
    compute: float
    in_flight: int
    steps: int

    @property
    def step(self) -> float:
        """Seconds of a step of M microbatches."""
        return self.seconds / self.steps

    @property
    def least(self) -> float:
        """Seconds that the slower stage alone would take; it waits for its first microbatch."""
        return (self.steps * max(self.in_flight, STAGES) + STAGES - 1) * self.compute

    @property
    def overhead(self) -> float:
        """Milliseconds a microbatch and hop beyond that."""
        return 1000 * (self.seconds - self.least) / (self.steps * self.in_flight)


def show(in_flight: int, turns: dict[str, list[Turn]]) -> None:
    print(f"\nM = {in_flight}: ms a step   ms compute  of the bound   x torch   overhead, ms a hop")
    for way, found in turns.items():
        step = statistics.median(1000 * turn.step for turn in found)
        compute = statistics.median(1000 * turn.compute for turn in found)
        share = statistics.median(turn.least / turn.seconds for turn in found)
        torchs = zip(turns[TORCH], found, strict=True)
        x_torch = statistics.median(a.step / b.step for a, b in torchs)
        overhead = statistics.median(turn.overhead for turn in found)
        print(f"{way:>7}  {step:10.2f}  {compute:11.2f}  {share:12.2f}  {x_torch:8.2f}  "
              f"{overhead:10.2f}  {_target(way, in_flight)}")  # fmt: skip


def _target(way: str, in_flight: int) -> str:
    if way not in TARGETS:
        return ""
    share, x_torch = TARGETS[way]
    rest = f", {MOST_OVERHEAD} ms" if in_flight >= 8 and way != "grpc" else ""
    return f"(targets {share:.2f}, {x_torch:.1f}x{rest})"


class Layers(nn.Module):
    """What a stage computes, and how long it took."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), nn.GELU())]
        self.layers = nn.Sequential(*layers)
        self.seconds = 0.0
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        with self.clock():
            self.count += 1
            y: Tensor = self.layers(x)
        return y

    @contextmanager
    def clock(self) -> Iterator[None]:
        """What is done under it is compute."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    def entering(self, back: Tensor) -> Tensor:
        """What the first stage computes on next; it depends on what came back."""
        with self.clock():
            return torch.ones(len(back), WIDTH) + (back[:, None] % 2)

    def tokens(self, y: Tensor) -> Tensor:
        """What the last stage sends back: a number a row."""
        with self.clock():
            return y.argmax(-1)

    def mean(self) -> float:
        """Seconds of one microbatch since this was last asked."""
        mean = self.seconds / self.count
        self.seconds, self.count = 0.0, 0
        return mean


def framed(kind: Kind, sequence: int, x: Tensor) -> Frame:
    return Frame(kind, SESSION, sequence, {}, (to_view("x", x),))


def taken(inlet: Inlet) -> tuple[int, Tensor]:
    frame = inlet.receive()
    assert frame is not None
    return frame.sequence, from_view(frame.tensors[0])


class First:
    """The first stage and the loop."""

    def __init__(self, child: Connection) -> None:
        self._child = child
        self._layers = Layers()
        links = self._links = Links()
        addresses, port = child.recv()
        child.send(links.addresses)
        self._outlets = {way: links.dial(way, addresses[way]) for way in LINKS}
        self._inlets = {way: links.accepted() for way in LINKS}
        self._torch = Pipelined(self._layers, 0, port)

    def turn(self, way: str, in_flight: int, steps: int) -> Turn:
        self._child.send((way, in_flight, steps))
        self._child.recv()
        began = time.perf_counter()
        if way == TORCH:
            self._torch.first(in_flight, steps)
        else:
            self._loop(self._outlets[way], self._inlets[way], in_flight, steps)
        seconds = time.perf_counter() - began
        compute = max(self._layers.mean(), self._child.recv())
        return Turn(seconds, compute, in_flight, steps)

    def stop(self) -> None:
        self._child.send(None)
        for outlet in self._outlets.values():
            outlet.close()
        self._child.recv()
        for inlet in self._inlets.values():
            inlet.close("the end")
        self._links.close()
        dist.destroy_process_group()

    def _loop(self, outlet: Outlet, inlet: Inlet, in_flight: int, steps: int) -> None:
        def enter(sequence: int, back: Tensor) -> None:
            x = self._layers.entering(back)
            outlet.send(framed(Kind.MICROBATCH, sequence, self._layers(x)))

        for n in range(in_flight):
            enter(n, torch.zeros(ROWS, dtype=torch.int64))
        for n in range(in_flight, in_flight * steps):
            enter(n, taken(inlet)[1])
        for _ in range(in_flight):
            taken(inlet)


def last_stage(parent: Connection) -> None:
    """The other process."""
    layers, links = Layers(), Links()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    parent.send((links.addresses, port))
    addresses = parent.recv()
    inlets = {way: links.accepted() for way in LINKS}
    outlets = {way: links.dial(way, addresses[way]) for way in LINKS}
    pipelined = Pipelined(layers, 1, port)
    with torch.inference_mode():
        while (told := parent.recv()) is not None:
            way, in_flight, steps = told
            parent.send("ready")
            if way == TORCH:
                pipelined.last(in_flight, steps)
            else:
                for _ in range(in_flight * steps):
                    sequence, x = taken(inlets[way])
                    outlets[way].send(framed(Kind.RESULT, sequence, layers.tokens(layers(x))))
            parent.send(layers.mean())
    for outlet in outlets.values():
        outlet.close()
    for inlet in inlets.values():
        inlet.close("the end")
    parent.send("over")
    links.close()
    dist.destroy_process_group()


class Pipelined:
    """The same loop by torch.distributed.pipelining."""

    def __init__(self, layers: Layers, rank: int, port: int) -> None:
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", address, rank=rank, world_size=STAGES)
        self._layers = layers
        self._rank = rank
        self._schedules: dict[int, Callable[..., Tensor]] = {}

    def first(self, in_flight: int, steps: int) -> None:
        back = torch.zeros(in_flight * ROWS, dtype=torch.int64)
        for _ in range(steps):
            self._schedule(in_flight)(self._layers.entering(back))
            dist.recv(back, STAGES - 1)

    def last(self, in_flight: int, steps: int) -> None:
        for _ in range(steps):
            dist.send(self._layers.tokens(self._schedule(in_flight)()), 0)

    def _schedule(self, in_flight: int) -> Callable[..., Tensor]:
        if in_flight not in self._schedules:
            stage = PipelineStage(self._layers, self._rank, STAGES, torch.device("cpu"))
            self._schedules[in_flight] = ScheduleGPipe(stage, in_flight).step
        return self._schedules[in_flight]


if __name__ == "__main__":
    main()
