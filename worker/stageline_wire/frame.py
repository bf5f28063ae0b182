"""The frame: one message between two parts of a pipeline, header and raw tensors.

    header   48 bytes   magic, version, kind, sizes, session, sequence
    meta     JSON       what the kind needs beside tensors (an object)
    table    n entries  name, datatype, shape of each tensor
    tensors             row-major, little-endian, each starting at a multiple of 64

Every size is checked against the buffer that is already here before anything is made from it, so
a truncated or lying frame costs nothing but its own bytes. Encoding copies no tensor: it returns
the buffers in order, for `sendmsg` or for one join.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from stageline_wire.datatypes import BY_CODE, Datatype

_MAGIC = 0x314C4753  # "SGL1"
_VERSION = 1
_HEADER = struct.Struct("<IBBHIIQQQQ")
_ENTRY = struct.Struct("<BBB")
HEADER_LENGTH = _HEADER.size
_ALIGN = 64
_MAX_DIMENSIONS = 8
_MAX_META = 64 << 20
_MOST_KNOWN = 512  # tables: a link's frames have the same few, one after another
_MOST_OF_A_KNOWN_TABLE = 1 << 10

Buffer = bytes | bytearray | memoryview


class Kind(IntEnum):
    """What a frame is for. 1-15 pass between stages, 16-31 between router and leader."""

    HELLO = 1  # first on a link: who calls, in which session
    WELCOME = 2  # the answer: how much may be in flight (credits)
    MICROBATCH = 3  # activations for the next stage
    RESULT = 4  # outputs or tokens, last stage to leader
    CREDIT = 5  # microbatches were taken off the link
    END = 6  # the sender is done; sent back as the acknowledgement

    INFER = 16  # router to leader: tensors of one microbatch
    GENERATE = 17  # router to leader: a prompt
    CANCEL = 18  # router to leader: ids nobody waits for
    ANSWER = 19  # leader to router: the outputs of an INFER
    TOKENS = 20  # leader to router: every token of one step
    FAILURE = 21  # leader to router: an id that ended badly, with a sentence


_dumps = json.JSONEncoder(separators=(",", ":")).encode
_KINDS = {kind.value: kind for kind in Kind}


class FrameError(Exception):
    """A frame that cannot be read; the message says what is wrong with it."""


# Tuples, not frozen dataclasses: these take a third of the time to make, and a hop makes several.
class TensorView(NamedTuple):
    """A tensor as bytes: `data` is contiguous, row-major, little-endian."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: Buffer

    @property
    def size(self) -> int:
        """Bytes that datatype and shape ask for."""
        return math.prod(self.shape) * self.datatype.size


class Frame(NamedTuple):
    """One message. `sequence` counts microbatches within `session`."""

    kind: Kind
    session: int = 0
    sequence: int = 0
    meta: Mapping[str, Any] = MappingProxyType({})
    tensors: tuple[TensorView, ...] = ()


def encode(frame: Frame) -> list[Buffer]:
    """The frame's bytes, as buffers in order. Tensor data is passed through, never copied.

    Raises FrameError when a tensor's data are not what its shape asks for.
    """
    meta = _dumps(frame.meta).encode() if frame.meta else b""
    table: list[bytes] = []
    body: list[Buffer] = []
    length = 0
    for name, datatype, shape, buffer in frame.tensors:
        entry, size = _entry(name, datatype, shape)
        data = memoryview(buffer).cast("B")
        if len(data) != size:
            raise FrameError(f"tensor {name} has {len(data)} bytes, its shape asks for {size}")
        if gap := -length % _ALIGN:
            body.append(bytes(gap))
        table.append(entry)
        body.append(data)
        length += gap + size
    entries = b"".join(table)
    head = _HEADER.size + len(meta) + len(entries)
    gap = -head % _ALIGN if body else 0
    header = _HEADER.pack(
        _MAGIC, _VERSION, frame.kind, len(table), len(meta), len(entries),
        frame.session, frame.sequence, head + gap + length, 0,
    )  # fmt: skip
    return [b"".join((header, meta, entries, bytes(gap))), *body]


def frame_length(buffer: Buffer, at: int = 0) -> int:
    """Bytes that a frame says it has, from its HEADER_LENGTH first bytes, which begin at `at`.

    Raises FrameError when this is no frame's beginning.
    """
    magic, version, _, _, _, _, _, _, total, _ = _HEADER.unpack_from(buffer, at)
    if magic != _MAGIC or version != _VERSION or total < _HEADER.size:
        raise FrameError(f"not a Stageline frame of version {_VERSION}")
    return int(total)


def decode(buffer: Buffer) -> Frame:
    """Read a frame whose tensors are views of `buffer`.

    Raises FrameError when the buffer is not one whole, consistent frame.
    """
    view = memoryview(buffer).toreadonly()
    if view.format != "B":
        view = view.cast("B")
    if len(view) < _HEADER.size:
        raise FrameError(f"the frame is truncated: {len(view)} bytes, its header alone has 48")
    magic, version, kind, count, n_meta, n_table, session, sequence, total, _ = _HEADER.unpack_from(
        view
    )
    if magic != _MAGIC or version != _VERSION:
        raise FrameError(f"not a Stageline frame of version {_VERSION}")
    if total != len(view):
        raise FrameError(f"the frame says it has {total} bytes, {len(view)} came")
    table_at = _HEADER.size + n_meta
    if n_meta > _MAX_META or table_at + n_table > total:
        raise FrameError("the frame's meta and table are longer than the frame")
    meta = _meta(view[_HEADER.size : table_at]) if n_meta else {}
    start = table_at + n_table
    layout = _known_layout if n_table <= _MOST_OF_A_KNOWN_TABLE else _layout
    places = layout(bytes(view[table_at:start]), count, start, total)
    tensors = [TensorView(name, type_, shape, view[a:b]) for name, type_, shape, a, b in places]
    if (known := _KINDS.get(kind)) is None:
        raise FrameError(f"frame kind {kind} is unknown")
    return Frame(known, session, sequence, meta, tuple(tensors))


@lru_cache(_MOST_KNOWN)
def _entry(name: str, datatype: Datatype, shape: tuple[int, ...]) -> tuple[bytes, int]:
    """A tensor's entry in the table, and its bytes."""
    encoded = name.encode()
    head = _ENTRY.pack(len(encoded), datatype.code, len(shape))
    entry = head + encoded + struct.pack(f"<{len(shape)}Q", *shape)
    return entry, math.prod(shape) * datatype.size


def _meta(data: memoryview) -> Mapping[str, Any]:
    try:
        meta = json.loads(str(data, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the frame's meta is not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise FrameError("the frame's meta is not an object")
    return meta


_Place = tuple[str, Datatype, tuple[int, ...], int, int]


def _layout(table: bytes, count: int, start: int, total: int) -> tuple[_Place, ...]:
    """Name, datatype and shape of each tensor, and where in the frame its data begin and end.

    `start` is where the table ends. Raises FrameError when the frame's `total` bytes are not those
    that its table asks for.
    """
    places: list[_Place] = []
    at, offset = 0, start
    for _ in range(count):
        name, datatype, shape, at = _read_entry(table, at)
        size = math.prod(shape) * datatype.size
        offset += -offset % _ALIGN
        if offset + size > total:
            raise FrameError(f"tensor {name} needs {size} bytes and the frame ends before that")
        places.append((name, datatype, shape, offset, offset + size))
        offset += size
    if at != len(table) or offset != total:
        raise FrameError("the frame has bytes that belong to no tensor")
    return tuple(places)


_known_layout = lru_cache(_MOST_KNOWN)(_layout)


def _read_entry(table: bytes, at: int) -> tuple[str, Datatype, tuple[int, ...], int]:
    if at + _ENTRY.size > len(table):
        raise FrameError("the frame's tensor table is truncated")
    length, code, dimensions = _ENTRY.unpack_from(table, at)
    name_at = at + _ENTRY.size
    shape_at = name_at + length
    after = shape_at + 8 * dimensions
    if after > len(table) or dimensions > _MAX_DIMENSIONS or code not in BY_CODE:
        raise FrameError("the frame's tensor table is damaged")
    try:
        name = table[name_at:shape_at].decode()
    except UnicodeDecodeError:
        raise FrameError("the frame's tensor table is damaged") from None
    shape = struct.unpack_from(f"<{dimensions}Q", table, shape_at)
    return name, BY_CODE[code], shape, after
