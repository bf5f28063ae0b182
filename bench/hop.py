"""One hop over each transport, against raw TCP and gloo; and how well sending hides behind compute.

Two processes pinned to a core each. For the overlap there are three, and compute is a sleep, as the
host of an accelerator sees it: they share both cores, none of them pinned. A message is a tensor in
a frame, from the tensor to the tensor. Raw TCP is a header and the payload in one sendmsg, and a
recv_into for either. Rounds are interleaved; figures are medians over rounds, ratios medians of
each round's ratio.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import torch
import torch.distributed as dist
from pair import LINKS, SESSION, Links, beside, on_both_cores, pin

from stageline_wire import Frame, Kind
from stageline_worker.tensors import from_view, to_view
from stageline_worker.transport import Inlet, Outlet

MIB: Final = 1 << 20
SIZES: Final = {16 << 10: "16 KiB", 256 << 10: "256 KiB", 4 * MIB: "4 MiB", 32 * MIB: "32 MiB"}
WAYS: Final = ("raw", *LINKS, "gloo")
BYTES: Final = 512 * MIB
MOST_MESSAGES: Final = 4000
GLOO_MESSAGES: Final = 400
TARGETS: Final = {
    ("grpc", 4 * MIB): 0.35, ("grpc", 32 * MIB): 0.40, ("socket", 16 << 10): 0.80,
}  # fmt: skip
_OVERLAP_SECONDS: Final = 0.005
_HEAD: Final = struct.Struct("<Q56x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for CI")
    quick = parser.parse_args().quick
    pin(0)
    throughput(rounds=3 if quick else 9, share=0.25 if quick else 1.0)
    overlap(rounds=2 if quick else 5, microbatches=60 if quick else 200)


def throughput(rounds: int, share: float) -> None:
    with beside(receive_all, 1) as child:
        sender = Sender(child)
        for size, name in SIZES.items():
            taken: dict[str, list[Cost]] = {way: [] for way in WAYS}
            for turn in range(rounds + 1):
                for way in WAYS:
                    cost = sender.cost(way, size, share)
                    if turn:  # the first round is for what is made lazily
                        taken[way].append(cost)
            show(name, size, taken)
        sender.stop()


@dataclass(frozen=True)
class Cost:
    """Of one message, in seconds: on the clock, and of either process's CPU."""

    clock: float
    sending: float
    receiving: float

    @property
    def slower(self) -> float:
        """What a hop could take at best, were both cores its own."""
        return max(self.sending, self.receiving)


def show(name: str, size: int, taken: dict[str, list[Cost]]) -> None:
    print(
        f"\n{name:>8}      GB/s  us a message  x raw TCP  x gloo   CPU us: send  receive  x raw TCP"
    )
    for way in WAYS:
        clock = statistics.median(cost.clock for cost in taken[way])
        sending = statistics.median(cost.sending for cost in taken[way])
        receiving = statistics.median(cost.receiving for cost in taken[way])
        raw = list(zip(taken["raw"], taken[way], strict=True))
        x_raw = statistics.median(a.clock / b.clock for a, b in raw)
        x_cpu = statistics.median(a.slower / b.slower for a, b in raw)
        gloo = zip(taken["gloo"], taken[way], strict=True)
        x_gloo = statistics.median(a.clock / b.clock for a, b in gloo)
        target = TARGETS.get((way, size))
        said = f"   (target {target:.2f} x raw TCP)" if target else ""
        print(f"{way:>8}  {size / clock / 1e9:8.2f}  {clock * 1e6:12.1f}  {x_raw:9.2f}  "
              f"{x_gloo:6.1f}   {sending * 1e6:12.1f}  {receiving * 1e6:7.1f}  {x_cpu:9.2f}"
              f"{said}")  # fmt: skip


class Sender:
    """Our end, and how long a message takes on each way."""

    def __init__(self, child: Connection) -> None:
        self._child = child
        self._links = Links()
        addresses, raw, gloo = child.recv()
        self._raw = socket.create_connection(raw)
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._outlets = {way: self._links.dial(way, addresses[way]) for way in LINKS}
        join_gloo(gloo, rank=0)

    def cost(self, way: str, size: int, share: float) -> Cost:
        count = int(min(MOST_MESSAGES, max(8, share * BYTES // size)))
        if way == "gloo":
            count = min(count, GLOO_MESSAGES)
        tensor = torch.ones(size // 4)
        self._child.send((way, size, count))
        self._child.recv()
        began, busy = time.perf_counter(), time.process_time()
        self._send(way, tensor, count)
        receiving = self._child.recv()
        clock, sending = time.perf_counter() - began, time.process_time() - busy
        return Cost(clock / count, sending / count, receiving / count)

    def stop(self) -> None:
        self._child.send(None)
        for outlet in self._outlets.values():
            outlet.close()
        self._raw.close()
        self._links.close()
        dist.destroy_process_group()

    def _send(self, way: str, tensor: torch.Tensor, count: int) -> None:
        if way == "raw":
            send_raw(self._raw, tensor, count)
        elif way == "gloo":
            gloo_many(dist.isend, tensor, count)
        else:
            outlet = self._outlets[way]
            for n in range(count):
                outlet.send(framed(n, tensor))


def framed(sequence: int, tensor: torch.Tensor) -> Frame:
    return Frame(Kind.MICROBATCH, SESSION, sequence, {}, (to_view("x", tensor),))


def send_raw(connection: socket.socket, tensor: torch.Tensor, count: int) -> None:
    for _ in range(count):
        payload = memoryview(tensor.numpy()).cast("B")
        buffers = [_HEAD.pack(len(payload)), payload]
        sent = connection.sendmsg(buffers)
        if sent < _HEAD.size + len(payload):
            connection.sendall(b"".join(buffers)[sent:] if sent < _HEAD.size
                               else payload[sent - _HEAD.size :])  # fmt: skip


def gloo_many(move: Callable[..., Any], tensor: torch.Tensor, count: int) -> None:
    """Four in flight."""
    works: list[Any] = []
    for _ in range(count):
        works.append(move(tensor, 1 - dist.get_rank()))
        if len(works) == 4:
            works.pop(0).wait()
    for work in works:
        work.wait()


def join_gloo(port: int, rank: int) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)


def receive_all(parent: Connection) -> None:
    """The other process of the throughput."""
    links, listening = Links(), socket.create_server(("127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        gloo = probe.getsockname()[1]
    parent.send((links.addresses, listening.getsockname(), gloo))
    raw, _ = listening.accept()
    inlets = {way: links.accepted() for way in LINKS}
    join_gloo(gloo, rank=1)
    buffer = bytearray(max(SIZES))
    while (told := parent.recv()) is not None:
        way, size, count = told
        parent.send("ready")
        busy = time.process_time()
        if way == "raw":
            receive_raw(raw, buffer, count)
        elif way == "gloo":
            gloo_many(dist.irecv, torch.empty(size // 4), count)
        else:
            take(inlets[way], count)
        parent.send(time.process_time() - busy)
    for inlet in inlets.values():
        inlet.close("the end")
    links.close()
    dist.destroy_process_group()


def receive_raw(connection: socket.socket, buffer: bytearray, count: int) -> None:
    head, body = bytearray(_HEAD.size), memoryview(buffer)
    for _ in range(count):
        connection.recv_into(head, 0, socket.MSG_WAITALL)
        left = body[: _HEAD.unpack(head)[0]]
        while left:
            left = left[connection.recv_into(left) :]


def take(inlet: Inlet, count: int) -> None:
    for _ in range(count):
        frame = inlet.receive()
        assert frame is not None
        from_view(frame.tensors[0])


def overlap(rounds: int, microbatches: int) -> None:
    print(
        f"\noverlap: 3 stages, 4 MiB a microbatch, {_OVERLAP_SECONDS * 1000:g} ms of sleep in each"
    )
    found: dict[str, list[float]] = {way: [] for way in LINKS}
    with on_both_cores(), beside(emulate, 1) as last, beside(emulate, 1) as middle:
        links = Links()
        to_last, to_middle = last.recv(), middle.recv()
        last.send(None)
        middle.send(to_last)
        for turn in range(rounds + 1):
            for way in LINKS:
                outlet = links.dial(way, to_middle[way])
                for child in (middle, last):
                    child.send((way, microbatches))
                    child.recv()
                efficiency = turn_once(outlet, middle, last, microbatches)
                if turn:
                    found[way].append(efficiency)
                for child in (middle, last):
                    child.send("over")
                outlet.close()
        for child in (middle, last):
            child.send(None)
        links.close()
    for way, values in found.items():
        print(f"{way:>8}  {statistics.median(values):.2f} of compute alone  (target 0.95)")


def turn_once(outlet: Outlet, middle: Connection, last: Connection, microbatches: int) -> float:
    tensor = torch.ones(MIB)
    computed = 0.0
    began = time.perf_counter()
    for n in range(microbatches):
        computed += compute()
        outlet.send(framed(n, tensor))
    slowest = max(computed, middle.recv(), last.recv()) / microbatches
    return (microbatches + 2) * slowest / (time.perf_counter() - began)


def compute() -> float:
    began = time.perf_counter()
    time.sleep(_OVERLAP_SECONDS)
    return time.perf_counter() - began


def emulate(parent: Connection) -> None:
    """A middle or a last stage of the overlap."""
    with on_both_cores():
        relay_all(parent)


def relay_all(parent: Connection) -> None:
    links = Links()
    parent.send(links.addresses)
    after = parent.recv()
    while (told := parent.recv()) is not None:
        way, microbatches = told
        outlet = links.dial(way, after[way]) if after else None
        inlet = links.accepted()
        parent.send("ready")
        parent.send(relay(inlet, outlet, microbatches))
        parent.recv()  # what was sent is still on its way
        inlet.close("the round is over")
        if outlet is not None:
            outlet.close()
    links.close()


def relay(inlet: Inlet, outlet: Outlet | None, microbatches: int) -> float:
    computed = 0.0
    for n in range(microbatches):
        frame = inlet.receive()
        assert frame is not None
        tensor = from_view(frame.tensors[0])
        computed += compute()
        if outlet is not None:
            outlet.send(framed(n, tensor))
    return computed


if __name__ == "__main__":
    main()
