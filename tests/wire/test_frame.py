"""The frame: whatever is encoded comes back, and nothing else is ever read."""

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_wire import DATATYPES, Frame, FrameError, Kind, TensorView, decode, encode

U64 = st.integers(0, 2**64 - 1)
META = st.dictionaries(
    st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5) | st.lists(st.booleans())
)


@st.composite
def tensors(draw):
    datatype = draw(st.sampled_from(list(DATATYPES.values())))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    size = datatype.size
    for dimension in shape:
        size *= dimension
    return TensorView(
        draw(st.text(max_size=8)), datatype, shape, draw(st.binary(min_size=size, max_size=size))
    )


FRAMES = st.builds(
    Frame,
    st.sampled_from(Kind),
    U64,
    U64,
    META,
    st.lists(tensors(), max_size=3).map(tuple),
)


def joined(frame: Frame) -> bytes:
    return b"".join(encode(frame))


def sample() -> Frame:
    view = TensorView("x", DATATYPES["FP32"], (2, 3), bytes(range(24)))
    return Frame(Kind.MICROBATCH, 7, 9, {"a": 1}, (view, view))


@given(FRAMES)
def test_what_is_encoded_comes_back(frame):
    back = decode(joined(frame))
    assert (back.kind, back.session, back.sequence) == (frame.kind, frame.session, frame.sequence)
    assert back.meta == frame.meta
    assert [(t.name, t.datatype, t.shape, bytes(t.data)) for t in back.tensors] == [
        (t.name, t.datatype, t.shape, t.data) for t in frame.tensors
    ]


def test_tensors_are_views_at_multiples_of_64_and_encoding_copies_none():
    data = bytearray(24)
    view = TensorView("x", DATATYPES["FP32"], (2, 3), data)
    buffers = encode(Frame(Kind.MICROBATCH, tensors=(view,)))
    data[0] = 42
    message = b"".join(buffers)
    assert message[-24] == 42, "encode copied the tensor"
    assert (len(message) - 24) % 64 == 0
    (back,) = decode(message).tensors
    assert isinstance(back.data, memoryview)
    assert back.data.obj is message, "decode copied the tensor"


@pytest.mark.parametrize("cut", range(len(joined(sample()))))
def test_a_truncated_frame_is_refused(cut):
    with pytest.raises(FrameError):
        decode(joined(sample())[:cut])


def test_a_frame_with_something_behind_it_is_refused():
    with pytest.raises(FrameError, match=r"says it has \d+ bytes, \d+ came"):
        decode(joined(sample()) + b"x")


@settings(max_examples=400)
@given(st.data())
def test_a_damaged_frame_is_read_or_refused_but_never_raises_else(data):
    message = bytearray(joined(sample()))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        frame = decode(message)
    except FrameError:
        return
    assert sum(len(t.data) for t in frame.tensors) <= len(message)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise):
    with pytest.raises(FrameError):
        decode(noise)


def forged(**fields) -> bytes:
    """The sample with fields of its header overwritten."""
    names = [
        "magic",
        "version",
        "kind",
        "count",
        "n_meta",
        "n_table",
        "session",
        "sequence",
        "total",
    ]
    layout = struct.Struct("<IBBHIIQQQ")
    message = bytearray(joined(sample()))
    values = dict(zip(names, layout.unpack_from(message), strict=True)) | fields
    layout.pack_into(message, 0, *values.values())
    return bytes(message)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"magic": 0}, "not a Stageline frame"),
        ({"version": 9}, "not a Stageline frame"),
        ({"kind": 99}, "frame kind 99 is unknown"),
        ({"total": 2**63}, "says it has 9223372036854775808 bytes"),
        ({"n_meta": 2**32 - 1}, "longer than the frame"),
        ({"n_table": 2**32 - 1}, "longer than the frame"),
        ({"count": 2**16 - 1}, "table is truncated"),
        ({"count": 1}, "belong to no tensor"),
        ({"n_meta": 3}, "not JSON"),
    ],
)
def test_a_lying_header_is_refused_with_a_sentence(fields, sentence):
    with pytest.raises(FrameError, match=sentence):
        decode(forged(**fields))


def test_a_shape_that_claims_the_world_costs_nothing():
    message = joined(sample())
    claimed = message.replace(struct.pack("<QQ", 2, 3), struct.pack("<QQ", 2**63, 2**63), 1)
    with pytest.raises(FrameError, match="needs"):
        decode(claimed)


def test_a_table_that_is_known_does_not_vouch_for_the_next_frame():
    message = joined(sample())
    decode(message)
    with pytest.raises(FrameError, match="needs"):
        decode(forged(total=len(message) - 8)[:-8])
    with pytest.raises(FrameError, match="belong to no tensor"):
        decode(forged(total=len(message) + 8) + bytes(8))


@pytest.mark.parametrize("meta", [b"[1]", b"nul", b"[" * 50_000, b"\xff\xfe", b"9" * 10_000])
def test_a_meta_that_is_no_object_is_refused(meta):
    header = struct.pack("<IBBHIIQQQQ", 0x314C4753, 1, 1, 0, len(meta), 0, 0, 0, 48 + len(meta), 0)
    with pytest.raises(FrameError, match="meta is not"):
        decode(header + meta)


def test_a_tensor_whose_bytes_do_not_fit_its_shape_is_not_sent():
    view = TensorView("x", DATATYPES["FP32"], (2, 3), bytes(23))
    with pytest.raises(FrameError, match="has 23 bytes, its shape asks for 24"):
        encode(Frame(Kind.MICROBATCH, tensors=(view,)))


def test_meta_is_json():
    message = joined(Frame(Kind.HELLO, meta={"stage": 1}))
    assert json.loads(message[48:]) == {"stage": 1}
