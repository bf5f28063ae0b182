"""Segments as bytes: a fixed record for each, another for each that draws.

A microbatch of decoding tokens has as many segments as tokens, each of them at every stage, so
this is written once for each token: binary, and nothing that follows from something else.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from stageline_wire import FrameError
from stageline_wire.frame import Buffer
from stageline_worker.microbatch import Sampling, Segment

_SEGMENT = struct.Struct("<IIIiB")  # slot, start, count, prompt or -1, how it draws
_SAMPLING = struct.Struct("<QdIdddddbH")  # its fields; logprobs or -1, how many ids are banned
_NONE, _PLAIN, _FULL = range(3)
_REST_OF_PLAIN = Sampling(seed=0, position=0)[2:]


def pack(segments: tuple[Segment, ...]) -> bytes:
    """The bytes of all of them."""
    data = bytearray()
    for segment in segments:
        sampling = segment.sampling
        how = _NONE if sampling is None else _PLAIN if _is_plain(sampling) else _FULL
        prompt = -1 if segment.prompt is None else segment.prompt
        data += _SEGMENT.pack(segment.slot, segment.start, segment.count, prompt, how)
        if sampling is not None and how == _FULL:
            data += _packed(sampling)
    return bytes(data)


def unpack(data: Buffer, count: int) -> tuple[Segment, ...]:
    """`count` segments. Raises FrameError when these are not their bytes."""
    segments, at = [], 0
    try:
        for _ in range(count):
            slot, start, tokens, prompt, how = _SEGMENT.unpack_from(data, at)
            at += _SEGMENT.size
            sampling = None
            if how == _PLAIN:
                sampling = _plain(start + tokens)
            elif how == _FULL:
                sampling, at = _unpacked(data, at, start + tokens)
            segments.append(Segment(slot, start, tokens, sampling, None if prompt < 0 else prompt))
    except struct.error as damaged:
        raise FrameError(f"the microbatch's segments are damaged: {damaged}") from None
    if at != len(data):
        raise FrameError(f"the microbatch's segments have {len(data) - at} bytes too many")
    return tuple(segments)


@lru_cache(1 << 14)
def _plain(position: int) -> Sampling:
    """To draw greedily and nothing else; nobody can tell two of these apart."""
    return Sampling(0, position)


def _is_plain(sampling: Sampling) -> bool:
    """Greedy and nothing else; its seed does not matter."""
    return sampling[2:] == _REST_OF_PLAIN


def _packed(s: Sampling) -> bytes:
    # The position is the end of the segment.
    logprobs = -1 if s.logprobs is None else s.logprobs
    fields = (
        s.seed, s.temperature, s.top_k, s.top_p, s.min_p,
        s.repetition_penalty, s.presence_penalty, s.frequency_penalty, logprobs, len(s.banned),
    )  # fmt: skip
    banned = struct.pack(f"<{len(s.banned)}I", *s.banned) if s.banned else b""
    return _SAMPLING.pack(*fields) + banned


def _unpacked(data: Buffer, at: int, position: int) -> tuple[Sampling, int]:
    seed, temperature, k, p, min_p, repetition, presence, frequency, logprobs, count = (
        _SAMPLING.unpack_from(data, at)
    )
    at += _SAMPLING.size
    banned = struct.unpack_from(f"<{count}I", data, at)
    told = None if logprobs < 0 else logprobs
    return (
        Sampling(
            seed, position, temperature, k, p, min_p, repetition, presence, frequency, banned, told
        ),
        at + 4 * count,
    )
