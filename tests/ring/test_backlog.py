"""What a link writes comes out in order and whole, whatever the kernel takes at once."""

import socket
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_worker.transport.backlog import Backlog, size
from stageline_worker.transport.reading import padded
from stageline_worker.transport.wire import WRITABLE, PlainWire, Waker, wait

MOST = 1000


class Narrow:
    """A wire that takes as much as it is told to."""

    def __init__(self, takes):
        self.came = b""
        self._takes = takes

    def write(self, buffers):
        whole = b"".join(buffers)
        count = min(len(whole), self._takes())
        self.came += whole[:count]
        return count


@given(
    lengths=st.lists(st.sampled_from([1, 63, 64, 500, MOST, MOST + 1, 5000]), max_size=12),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=60)
def test_frames_keep_their_order_whatever_the_wire_takes(lengths, chance):
    wire = Narrow(lambda: chance.choice([0, 1, 64, 700, 10_000]))
    backlog = Backlog(wire)
    for n, frame in enumerate(frames := [bytes([n]) * length for n, length in enumerate(lengths)]):
        waits = backlog.write([frame[:10], frame[10:]], len(frame), MOST)
        assert waits == (wire.came != on_the_wire(frames[: n + 1]))
        if chance.random() < 0.5:
            backlog.flush()
    while backlog.waits:
        backlog.flush()
    assert wire.came == on_the_wire(frames)


def test_a_frame_over_the_most_is_left_to_whoever_flushes():
    wire = Narrow(lambda: 10_000)
    backlog = Backlog(wire)
    assert backlog.write([bytes(MOST + 1)], MOST + 1, MOST)
    assert wire.came == b""
    backlog.flush()
    assert wire.came == on_the_wire([bytes(MOST + 1)])


def test_frames_keep_their_order_while_another_thread_flushes():
    """Over a real socket that is full most of the time."""
    near, far = socket.socketpair()
    backlog, waker = Backlog(PlainWire(near)), Waker()
    sent = [bytes([n % 251]) * (n * 7919 % 40_000 + 1) for n in range(300)]
    over = threading.Event()

    def flush_all():
        while not over.is_set() or backlog.waits:
            backlog.flush()
            wait(near.fileno(), WRITABLE, waker, None)

    def write_all():
        for frame in sent:
            backlog.write([frame], size([frame]), 20_000)
        over.set()

    threads = [threading.Thread(target=work) for work in (flush_all, write_all)]
    for thread in threads:
        thread.start()
    expected = on_the_wire(sent)
    came = bytearray()
    while len(came) < len(expected):
        came += far.recv(1 << 20)
    for thread in threads:
        thread.join()
    backlog.close()
    far.close()
    waker.close()
    assert came == expected


def on_the_wire(frames):
    return b"".join(frame + bytes(padded(len(frame)) - len(frame)) for frame in frames)
