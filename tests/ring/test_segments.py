"""Segments survive the wire, whatever is in them; bytes that are none are refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stageline_wire import Frame, FrameError, Kind, decode, encode
from stageline_worker.microbatch import Microbatch, Sampling, Segment
from stageline_worker.ring.messages import Passing, frame_of, read_passing
from stageline_worker.ring.segments import pack, unpack

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SMALL = st.integers(0, 2**31 - 1)


@st.composite
def segments(draw):
    slot, start, count = draw(SMALL), draw(st.integers(0, 2**30)), draw(st.integers(1, 2**20))
    full = st.builds(
        Sampling,
        seed=st.integers(0, 2**63 - 1),
        position=st.just(start + count),
        temperature=NUMBERS,
        top_k=SMALL,
        top_p=NUMBERS,
        min_p=NUMBERS,
        repetition_penalty=NUMBERS,
        presence_penalty=NUMBERS,
        frequency_penalty=NUMBERS,
        banned=st.lists(SMALL, max_size=5).map(tuple),
        logprobs=st.none() | st.integers(0, 20),
    )
    plain = st.just(Sampling(0, start + count))
    sampling = draw(st.none() | plain | full)
    return Segment(slot, start, count, sampling, draw(st.none() | SMALL))


def way(passing, kind=Kind.MICROBATCH):
    """Over the wire."""
    return read_passing(decode(b"".join(encode(frame_of(kind, 7, 9, passing)))))


@given(st.lists(segments(), min_size=1, max_size=8).map(tuple))
def test_segments_come_as_they_went(sent):
    assert unpack(pack(sent), len(sent)) == sent


@given(segments(), st.data())
def test_a_part_of_the_bytes_is_refused(segment, data):
    packed = pack((segment,))
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(FrameError, match="segments"):
        unpack(packed[:cut], 1)
    with pytest.raises(FrameError, match="bytes too many"):
        unpack(packed + b"\0", 1)


def test_a_microbatch_comes_as_it_went():
    segment = Segment(3, 4, 2, Sampling(5, 6, temperature=0.7, banned=(1, 2)), prompt=5)
    tensors = {"hidden_states": torch.ones(1, 2, 3), "input_ids": torch.tensor([7, 8])}
    sent = Passing(Microbatch(tensors, (segment,), ("logits",)), seconds=0.25, idle=True)
    got = way(sent)
    assert (got.seconds, got.idle) == (0.25, True)
    assert (got.microbatch.segments, got.microbatch.outputs) == ((segment,), ("logits",))
    assert list(got.microbatch.tensors) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(got.microbatch.tensors[name], tensor)
    assert way(Passing("stage 1 failed", 0.5)) == Passing("stage 1 failed", 0.5)


def test_a_result_goes_without_segments():
    tokens = Microbatch({"tokens": torch.tensor([5])}, (Segment(0, 0, 1, Sampling(0, 1)),))
    got = way(Passing(tokens), Kind.RESULT)
    assert (got.microbatch.segments, list(got.microbatch.tensors)) == ((), ["tokens"])


@pytest.mark.parametrize(
    ("meta", "sentence"),
    [
        ({}, "it took None seconds"),
        ({"seconds": "long"}, "it took 'long' seconds"),
        ({"seconds": 0, "segments": 1}, "segments are missing"),
        ({"seconds": 0, "outputs": "logits"}, "outputs are no list"),
    ],
)
def test_a_frame_that_no_stage_writes_is_refused(meta, sentence):
    with pytest.raises(FrameError, match=sentence):
        read_passing(Frame(Kind.MICROBATCH, 1, 1, meta))
