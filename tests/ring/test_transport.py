"""What every transport must do. A new one is added to `TRANSPORTS` and passes the same tests."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import grpc
import pytest
import torch

from stageline_wire import DATATYPES, Frame, Kind, decode, encode
from stageline_wire.credentials import Credentials
from stageline_worker.channel import SERVER_OPTIONS, open_channel
from stageline_worker.tensors import DTYPES, from_view, to_view
from stageline_worker.transport import (
    Inlet,
    LinkEnded,
    LinkError,
    LinkRefused,
    Outlet,
    Refusals,
    Transport,
)
from stageline_worker.transport.backlog import after
from stageline_worker.transport.dialing import connect
from stageline_worker.transport.grpc_inlet import GrpcTransport
from stageline_worker.transport.reading import FrameReader
from stageline_worker.transport.socket_transport import SocketTransport
from stageline_worker.transport.wire import READABLE, WRITABLE, Waker, wait
from support.certificates import Authority
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


@pytest.fixture(scope="session")
def credentials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates") / "stage"
    return Credentials.load(Authority().folder(folder, "stage"))


@pytest.fixture(params=[*TRANSPORTS, *(f"{name} with TLS" for name in TRANSPORTS)])
def ends(request, credentials):
    name, _, tls = request.param.partition(" ")
    with opened_ends(name, credentials if tls else None) as found:
        yield found


@pytest.fixture(params=TRANSPORTS)
def plain_ends(request):
    with opened_ends(request.param) as found:
        yield found


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


def counting(size):
    return torch.arange(251, dtype=torch.uint8).repeat(size // 251 + 1)[:size]


def until(condition, what):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {SECONDS} s"
        time.sleep(0.005)


def test_frames_arrive_whole_and_in_order(ends):
    outlet, inlet = ends.link()
    sender = threading.Thread(
        target=lambda: [outlet.send(microbatch(n, torch.full((n % 50,), n))) for n in range(300)]
    )
    sender.start()
    for n in range(300):
        frame = inlet.receive(SECONDS)
        assert frame.sequence == n
        assert from_view(frame.tensors[0]).tolist() == [n] * (n % 50)
    sender.join()


@pytest.mark.parametrize("size", [0, 1, 1000, 2**20, 2**24], ids=lambda size: f"{size} B")
def test_tensors_of_any_size_arrive(ends, size):
    outlet, inlet = ends.link()
    tensor = counting(size)
    outlet.send(microbatch(1, tensor))
    assert torch.equal(from_view(inlet.receive(SECONDS).tensors[0]), tensor)


def test_a_tensor_of_256_MiB_arrives_and_small_ones_around_it(plain_ends):
    outlet, inlet = plain_ends.link()
    small, large = counting(1000), counting(2**28)
    for n, tensor in enumerate([small, large, small]):
        outlet.send(microbatch(n, tensor))
    for tensor in (small, large, small):
        assert torch.equal(from_view(inlet.receive(6 * SECONDS).tensors[0]), tensor)


def test_a_thousand_tensors_arrive(ends):
    outlet, inlet = ends.link()
    tensors = tuple(to_view(str(n), torch.full((n % 7,), n)) for n in range(1000))
    outlet.send(Frame(Kind.MICROBATCH, SESSION, 1, {}, tensors))
    got = inlet.receive(SECONDS).tensors
    assert [from_view(view).tolist() for view in got] == [[n] * (n % 7) for n in range(1000)]


@pytest.mark.parametrize("name", DATATYPES)
def test_every_datatype_arrives_bit_for_bit(ends, name):
    outlet, inlet = ends.link()
    raw = torch.arange(48, dtype=torch.uint8) * 5
    bits = raw % 2 if name == "BOOL" else raw
    tensor = bits.view(DTYPES[name]).reshape(2, 3, -1)
    outlet.send(microbatch(1, tensor))
    got = from_view(inlet.receive(SECONDS).tensors[0])
    assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(got.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize(
    ("size", "window"), [(0, 64), (2**18, 12), (2**20, 4)], ids=["empty", "256 KiB", "1 MiB"]
)
def test_a_slow_reader_holds_the_sender_back(ends, size, window):
    outlet, inlet = ends.link()
    tensor = torch.zeros(size, dtype=torch.uint8)
    count = 4 * window
    sent: list[int] = []

    def send_all():
        for n in range(count):
            outlet.send(microbatch(n, tensor))
            sent.append(n)

    sender = threading.Thread(target=send_all)
    sender.start()
    most = 0
    for n in range(count):
        until(lambda n=n: len(sent) > n, f"send {n}")
        if n % window == 0:
            # Given time, an unbounded sender would run far ahead.
            time.sleep(0.02)
        most = max(most, len(sent) - n)
        assert inlet.receive(SECONDS).sequence == n
    sender.join()
    assert window / 2 <= most <= window + 1, f"{most} frames were on their way at once"


def test_a_sender_that_waits_for_credit_is_let_go_when_the_link_is_closed(ends):
    outlet, _ = ends.link()
    failed = queue.SimpleQueue()

    def send_until_it_fails():
        try:
            for n in range(100):
                outlet.send(microbatch(n))
        except LinkError as error:
            failed.put(str(error))

    sender = threading.Thread(target=send_until_it_fails)
    sender.start()
    outlet.close()
    assert failed.get(timeout=SECONDS)
    sender.join()
    assert ends.broken.empty(), "a link that was closed here was called broken"


def test_end_is_acknowledged_only_when_all_was_received(ends):
    outlet, inlet = ends.link()
    for n in range(3):
        outlet.send(microbatch(n))
    acknowledged = queue.SimpleQueue()
    finishing = threading.Thread(target=lambda: acknowledged.put(outlet.finish(SECONDS)))
    finishing.start()
    assert [inlet.receive(SECONDS).sequence for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LinkEnded):
        inlet.receive(SECONDS)
    with pytest.raises(LinkEnded):
        inlet.receive(SECONDS)
    assert acknowledged.get(timeout=SECONDS)
    finishing.join()
    outlet.close()
    assert ends.broken.empty(), "an orderly end was called broken"


def test_an_end_without_END_is_a_failure_at_the_receiver(ends):
    outlet, inlet = ends.link()
    outlet.send(microbatch(1))
    assert inlet.receive(SECONDS).sequence == 1
    outlet.close()
    with pytest.raises(LinkError) as error:
        inlet.receive(SECONDS)
    assert not isinstance(error.value, LinkEnded)


def test_the_death_of_the_receiver_is_told_once_and_ends_sending(ends):
    outlet, _ = ends.link()
    ends.die()
    assert ends.broken.get(timeout=SECONDS)
    with pytest.raises(LinkError):
        outlet.send(microbatch(1))
    assert not outlet.finish(SECONDS)
    assert ends.broken.empty()


def test_closing_the_inlet_breaks_the_link_with_its_reason(ends):
    _, inlet = ends.link()
    inlet.close("the session is over")
    assert "the session is over" in ends.broken.get(timeout=SECONDS)
    with pytest.raises(LinkError, match="the session is over"):
        inlet.receive(SECONDS)


def test_a_receiver_that_waits_is_woken(ends):
    _, inlet = ends.link()
    got = queue.SimpleQueue()
    waiting = threading.Thread(target=lambda: got.put(inlet.receive()))
    waiting.start()
    inlet.wake()
    assert got.get(timeout=SECONDS) is None
    waiting.join()
    assert inlet.receive(0) is None
    assert inlet.receive(0.01) is None


def test_a_refused_link_says_why(ends):
    with pytest.raises(LinkError, match="session 0 is none of ours"):
        ends.link(session=0)
    assert ends.refusals.count == 1


def test_a_dial_to_nobody_ends_at_its_deadline(ends):
    (port,) = free_ports(1)
    began = time.monotonic()
    outlet = ends.transport.dial(f"127.0.0.1:{port}", Frame(Kind.HELLO, 1), ends.broken.put)
    with pytest.raises(LinkError, match=r"did not answer within 0\.2 s"):
        outlet.connect(0.2)
    assert time.monotonic() - began < SECONDS


def test_a_dial_that_is_closed_lets_go_at_once(ends):
    (port,) = free_ports(1)
    outlet = ends.transport.dial(f"127.0.0.1:{port}", Frame(Kind.HELLO, 1), ends.broken.put)
    threading.Timer(0.1, outlet.close).start()
    began = time.monotonic()
    with pytest.raises(LinkError):
        outlet.connect(60.0)
    assert time.monotonic() - began < SECONDS
    assert ends.broken.empty()


def test_frames_of_another_session_are_dropped_and_counted(ends):
    outlet, inlet = ends.link()
    outlet.send(microbatch(1, session=SESSION - 1))
    outlet.send(microbatch(2))
    assert inlet.receive(SECONDS).sequence == 2
    assert ends.refusals.count == 1


def test_the_hop_is_measured(ends):
    """By a receiver that waits: a frame that it finds tells nothing of the way it took."""
    outlet, inlet = ends.link()
    over = threading.Event()

    def receive_all():
        while not over.is_set():
            inlet.receive(0.1)

    receiver = threading.Thread(target=receive_all)
    receiver.start()
    sequences = iter(range(10**6))

    def is_measured():
        outlet.send(microbatch(next(sequences)))
        return outlet.hop_seconds > 0

    until(is_measured, "a measurement")
    assert outlet.hop_seconds < 1.0
    over.set()
    receiver.join()


def bad_first_messages():
    good = b"".join(encode(Frame(Kind.HELLO, SESSION)))
    return {
        "empty": b"",
        "truncated": good[:-1] + b"",
        "noise": b"GET / HTTP/1.1\r\n\r\n" * 5,
        "no HELLO": b"".join(encode(microbatch(1))),
        "absurd length": good[:32] + b"\xff" * 8 + good[40:],
    }


@pytest.mark.parametrize("what", bad_first_messages())
def test_a_strangers_bad_frame_ends_only_its_own_stream(ends, what):
    outlet, inlet = ends.link()
    with ends.stranger() as stranger:
        stranger.say(bad_first_messages()[what], whole=False)
        with pytest.raises(HungUp, match=r"frame|HELLO"):
            stranger.hear()
    assert ends.refusals.count == 1
    outlet.send(microbatch(1))
    assert inlet.receive(SECONDS).sequence == 1, "the good link is harmed"


@pytest.mark.parametrize("message", [b"x" * 100, b"".join(encode(Frame(Kind.GENERATE, SESSION)))])
def test_a_bad_frame_on_a_link_breaks_it_and_is_counted(ends, message):
    with ends.stranger() as stranger:
        stranger.say(b"".join(encode(Frame(Kind.HELLO, SESSION))))
        assert stranger.hear().kind is Kind.WELCOME
        stranger.say(message)
        with pytest.raises(LinkError):
            ends.inlets.get(timeout=SECONDS).receive(SECONDS)
        assert ends.refusals.count == 1
        with pytest.raises(HungUp, match="frame"):
            stranger.hear()


def test_a_sender_that_ignores_its_credits_is_cut_off(ends):
    """Frames so large that they are taken off ahead of the ring, on every transport."""
    large = torch.zeros(1 << 20, dtype=torch.uint8)
    flood = [b"".join(encode(microbatch(n, large))) for n in range(12)]
    with ends.stranger() as stranger:
        stranger.say(b"".join(encode(Frame(Kind.HELLO, SESSION))))
        inlet = ends.inlets.get(timeout=SECONDS)
        saying = threading.Thread(target=lambda: [stranger.say(frame) for frame in flood])
        saying.start()
        got = [inlet.receive(SECONDS)]
        with pytest.raises(HungUp, match="more than its 64 credits"):
            list(iter(stranger.hear, None))
        with pytest.raises(LinkError, match="more than its 64 credits"):
            got.extend(iter(lambda: inlet.receive(SECONDS), None))
        assert len(got) <= 5, "more than the first, which is paid for at once, and a window"
        saying.join()
