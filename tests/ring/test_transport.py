"""What every transport does with frames: all of them, in order, of any size, under credits."""

import threading
import time

import pytest
import torch

from stageline_wire import DATATYPES, Frame, Kind
from stageline_worker.tensors import DTYPES, from_view, to_view
from support.transports import SECONDS, SESSION, microbatch, until


def counting(size):
    return torch.arange(251, dtype=torch.uint8).repeat(size // 251 + 1)[:size]


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
