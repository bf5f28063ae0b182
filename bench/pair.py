"""Processes pinned to a core each, and links of every transport between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Final

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
import torch

from stageline_wire import Frame, Kind
from stageline_worker.channel import SERVER_OPTIONS, keep_large_blocks
from stageline_worker.transport import Inlet, Outlet, Refusals
from stageline_worker.transport.grpc_inlet import GrpcTransport
from stageline_worker.transport.socket_transport import SocketTransport

LINKS: Final = ("unix", "socket", "grpc")
SESSION: Final = 1
_SECONDS: Final = 30.0


def pin(core: int) -> None:
    """This process computes on one core with one thread, as a stage of a benchmark does."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    keep_large_blocks()


@contextmanager
def on_both_cores() -> Iterator[None]:
    """This process wanders, as one that shares two cores with two others should."""
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0, 1})
    yield
    os.sched_setaffinity(0, pinned)


@contextmanager
def beside(work: Callable[..., None], core: int, *args: Any) -> Iterator[Connection]:
    """`work(connection, *args)` in a process pinned to `core`; gives our end of the connection."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_pinned, args=(work, core, theirs, *args))
    process.start()
    try:
        yield ours
        process.join(_SECONDS)
    finally:
        process.kill()
        process.join()


def _pinned(work: Callable[..., None], core: int, *args: Any) -> None:
    pin(core)
    work(*args)


class Links:
    """One process's links. Addresses are by transport; which is dialled is what it is."""

    def __init__(self) -> None:
        self._came: SimpleQueue[Inlet] = SimpleQueue()
        refusals = Refusals(print)
        accept = self._accept
        self._grpc = GrpcTransport(accept, refusals)
        self._sockets = {name: SocketTransport(accept, refusals) for name in ("unix", "socket")}
        self._pool = ThreadPoolExecutor(4)
        handlers = [self._grpc.handler()]
        self._server = grpc.server(self._pool, options=SERVER_OPTIONS, handlers=handlers)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.addresses = {
            "grpc": f"127.0.0.1:{port}",
            "unix": self._listen("unix", "127.0.0.1"),
            # Listening everywhere, it has no Unix socket by the address that is dialled.
            "socket": self._listen("socket", "0.0.0.0"),
        }

    def dial(self, name: str, address: str) -> Outlet:
        """A link over that transport."""
        transport = self._grpc if name == "grpc" else self._sockets[name]
        outlet = transport.dial(address, Frame(Kind.HELLO, SESSION), lambda reason: None)
        outlet.connect(_SECONDS)
        assert outlet.transport == name, f"{outlet.transport} in place of {name}"
        return outlet

    def accepted(self) -> Inlet:
        """The link that came in."""
        return self._came.get(timeout=_SECONDS)

    def close(self) -> None:
        for transport in self._sockets.values():
            transport.stop()
        self._server.stop(None).wait()
        self._pool.shutdown()

    def _accept(self, hello: Frame, inlet: Inlet) -> None:
        self._came.put(inlet)

    def _listen(self, name: str, host: str) -> str:
        for port in range(20_000, 32_000, 2):
            try:
                self._sockets[name].listen(f"{host}:{port}")
            except OSError:
                continue
            return f"127.0.0.1:{port}"
        raise OSError("every port is taken")
