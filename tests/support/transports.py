"""Transports that listen, and strangers that call. A new one is added to `TRANSPORTS`.

It passes the same tests.
"""

import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import grpc

from stageline_wire import Frame, Kind, decode
from stageline_worker.channel import SERVER_OPTIONS, open_channel
from stageline_worker.tensors import to_view
from stageline_worker.transport import Inlet, LinkRefused, Outlet, Refusals, Transport
from stageline_worker.transport.backlog import after
from stageline_worker.transport.dialing import connect
from stageline_worker.transport.grpc_inlet import GrpcTransport
from stageline_worker.transport.reading import FrameReader
from stageline_worker.transport.socket_transport import SocketTransport
from stageline_worker.transport.wire import READABLE, WRITABLE, Waker, wait
from support.pipeline import free_ports

SESSION = 7
SECONDS = 10.0


class Stranger(Protocol):
    """Somebody with a connection and no manners."""

    def say(self, message: bytes, *, whole: bool = True) -> None: ...

    def hear(self) -> Frame:
        """The next answer. Raises HungUp with what was told as the reason."""
        ...


@dataclass
class Ends:
    """A transport that listens, and what it was called with."""

    transport: Transport
    address: str
    refusals: Refusals
    die: Callable[[], None]
    call: Callable[[], Stranger]
    inlets: queue.SimpleQueue
    broken: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    name: str = ""

    def link(self, session: int = SESSION) -> tuple[Outlet, Inlet]:
        hello = Frame(Kind.HELLO, session)
        outlet = self.transport.dial(self.address, hello, self.broken.put)
        outlet.connect(SECONDS)
        assert (outlet.transport, outlet.note) == (self.name, "")
        return outlet, self.inlets.get(timeout=SECONDS)

    @contextmanager
    def stranger(self):
        with closing(self.call()) as stranger:
            yield stranger


class HungUp(Exception):
    pass


class GrpcStranger:
    def __init__(self, address, credentials):
        self._saying = queue.SimpleQueue()
        self._channel = open_channel(address, credentials)
        stream = self._channel.stream_stream("/stageline.v1.Relay/Link")
        self._call = stream(iter(self._saying.get, None))

    def say(self, message, *, whole=True):
        self._saying.put(message)

    def hear(self):
        try:
            return decode(next(self._call))
        except grpc.RpcError as error:
            raise HungUp(error.details()) from None

    def close(self):
        self._saying.put(None)
        self._channel.close()


class SocketStranger:
    def __init__(self, address, credentials):
        self._waker = Waker()
        self._wire, _ = connect(address, credentials, self._waker, SECONDS)
        self._frames = FrameReader(self._wire.read, 1 << 20)

    def say(self, message, *, whole=True):
        left = [message + bytes(-len(message) % 64 if whole else 0)]
        with suppress(OSError):  # it is hung up on
            while left := after(left, self._wire.write(left)):
                self._wait(WRITABLE)

    def hear(self):
        try:
            while (frame := self._frames.next()) is None:
                self._wait(READABLE)
        except (EOFError, OSError):
            raise HungUp("") from None
        if frame.kind is Kind.END:
            raise HungUp(frame.meta["reason"])
        return frame

    def close(self):
        self._wire.close()

    def _wait(self, event):
        wait(self._wire.fileno(), event, self._waker, time.monotonic() + SECONDS)


class Accepted:
    """What came in; at the end it goes, as it goes with a worker's session."""

    def __init__(self):
        self.inlets: queue.SimpleQueue = queue.SimpleQueue()
        self._all: list[Inlet] = []

    def __call__(self, hello: Frame, inlet: Inlet) -> None:
        if hello.session == 0:
            raise LinkRefused("session 0 is none of ours")
        self._all.append(inlet)
        self.inlets.put(inlet)

    def close(self):
        for inlet in self._all:
            inlet.close("the test is over")


@contextmanager
def grpc_ends(credentials=None):
    (port,) = free_ports(1)
    accepted, refusals = Accepted(), Refusals()
    transport = GrpcTransport(accepted, refusals, credentials)
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool, options=SERVER_OPTIONS, handlers=[transport.handler()])
    address = f"127.0.0.1:{port}"
    if credentials is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, credentials.server())
    server.start()
    stranger = partial(GrpcStranger, address, credentials)
    yield Ends(transport, address, refusals, lambda: server.stop(None), stranger, accepted.inlets)
    accepted.close()
    server.stop(None).wait()
    pool.shutdown()


@contextmanager
def socket_ends(credentials=None, listen="127.0.0.1"):
    (port,) = free_ports(1)
    accepted, refusals = Accepted(), Refusals()
    transport = SocketTransport(accepted, refusals, credentials, hello=0.3)
    transport.listen(f"{listen}:{port}")
    address = f"127.0.0.1:{port}"
    stranger = partial(SocketStranger, address, credentials)
    yield Ends(transport, address, refusals, transport.stop, stranger, accepted.inlets)
    accepted.close()
    transport.stop()


# A stage that listens on every address has no Unix socket by the name of just one.
TRANSPORTS = {
    "grpc": grpc_ends,
    "unix": socket_ends,
    "socket": partial(socket_ends, listen="0.0.0.0"),
}


@contextmanager
def opened_ends(name, credentials=None):
    with ExitStack() as stack:
        found = stack.enter_context(TRANSPORTS[name](credentials))
        opened: list[Outlet] = []
        dial = found.transport.dial

        def remembering(*args):
            opened.append(dial(*args))
            return opened[-1]

        found.transport.dial = remembering
        found.name = name
        yield found
        for outlet in opened:
            outlet.close()


def microbatch(sequence, tensor=None, session=SESSION):
    tensors = () if tensor is None else (to_view("x", tensor),)
    return Frame(Kind.MICROBATCH, session, sequence, {}, tensors)


def until(condition, what):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {SECONDS} s"
        time.sleep(0.005)
