"""Frames out of a stream of bytes: never other than they were sent, never more memory than came."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_wire import DATATYPES, Frame, Kind, TensorView, encode
from stageline_worker.transport.reading import FrameReader, padded


def test_a_frame_that_lies_about_its_length_costs_no_memory():
    """It says 4 GB and sends 1 MB; the reader makes room for what came, twice over."""
    header = bytearray(b"".join(encode(Frame(Kind.MICROBATCH, 7))))
    header[32:40] = (1 << 32).to_bytes(8, "little")
    left = memoryview(bytes(header) + bytes(1 << 20))

    def read(into):
        nonlocal left
        count = min(len(into), len(left))
        into[:count], left = left[:count], left[count:]
        return count or None

    frames = FrameReader(read, 1 << 33)
    tracemalloc.start()
    try:
        assert frames.next() is None
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 << 20, f"{most} bytes were allocated"


@given(
    sizes=st.lists(st.sampled_from([0, 1, 63, 64, 4000, 100_000, 300_000, 2_000_000]), max_size=12),
    cuts=st.randoms(use_true_random=False),
    kept=st.integers(0, 5),
)
@settings(max_examples=40)
def test_frames_are_the_same_however_the_stream_is_cut(sizes, cuts, kept):
    """Also those that somebody still looks at while later ones come."""
    stream = memoryview(b"".join(on_the_wire(n, size) for n, size in enumerate(sizes)))

    def read(into):
        nonlocal stream
        if not stream or cuts.random() < 0.2:
            return None
        count = min(len(into), len(stream), cuts.choice([1, 48, 64, 1000, 70_000, 1 << 20]))
        into[:count], stream = stream[:count], stream[count:]
        return count

    frames = FrameReader(read, 1 << 30)
    held = []
    for n, size in enumerate(sizes):
        while (frame := frames.next()) is None:
            pass
        held = [*held, (n, size, frame)][-1 - kept :]
        for number, length, earlier in held:
            assert earlier.sequence == number
            assert bytes(earlier.tensors[0].data) == bytes([number]) * length


def on_the_wire(number, size):
    view = TensorView("x", DATATYPES["UINT8"], (size,), bytes([number]) * size)
    raw = b"".join(encode(Frame(Kind.MICROBATCH, 7, number, {}, (view,))))
    return raw + bytes(padded(len(raw)) - len(raw))
