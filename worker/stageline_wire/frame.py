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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from stageline_wire.datatypes import BY_CODE, Datatype

_MAGIC = 0x314C4753  # "SGL1"
_VERSION = 1
_HEADER = struct.Struct("<IBBHIIQQQQ")
_ENTRY = struct.Struct("<BBB")
HEADER_LENGTH = _HEADER.size
_ALIGN = 64
_MAX_DIMENSIONS = 8
_MAX_META = 64 << 20

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


_KINDS = {kind.value: kind for kind in Kind}


class FrameError(Exception):
    """A frame that cannot be read; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor as bytes: `data` is contiguous, row-major, little-endian."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: Buffer

    @property
    def size(self) -> int:
        """Bytes that datatype and shape ask for."""
        return math.prod(self.shape) * self.datatype.size


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `sequence` counts microbatches within `session`."""

    kind: Kind
    session: int = 0
    sequence: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[TensorView, ...] = ()


def encode(frame: Frame) -> list[Buffer]:
    """The frame's bytes, as buffers in order. Tensor data is passed through, never copied."""
    meta = json.dumps(frame.meta, separators=(",", ":")).encode() if frame.meta else b""
    table = b"".join(map(_entry, frame.tensors))
    head = _HEADER.size + len(meta) + len(table)
    body = list(_padded(frame.tensors, head))
    total = head + sum(map(len, body))
    header = _HEADER.pack(
        _MAGIC, _VERSION, frame.kind, len(frame.tensors), len(meta), len(table),
        frame.session, frame.sequence, total, 0,
    )  # fmt: skip
    return [header, meta, table, *body]


def frame_length(head: Buffer) -> int:
    """Bytes that a frame says it has, from its first HEADER_LENGTH bytes.

    Raises FrameError when this is no frame's beginning.
    """
    magic, version, _, _, _, _, _, _, total, _ = _HEADER.unpack_from(head)
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
    meta = _meta(view[_HEADER.size : table_at])
    tensors = tuple(_tensors(view, table_at, n_table, count))
    return Frame(_kind(kind), session, sequence, meta, tensors)


def _entry(tensor: TensorView) -> bytes:
    name = tensor.name.encode()
    dimensions = len(tensor.shape)
    head = _ENTRY.pack(len(name), tensor.datatype.code, dimensions)
    return head + name + struct.pack(f"<{dimensions}Q", *tensor.shape)


def _padded(tensors: tuple[TensorView, ...], offset: int) -> Iterator[Buffer]:
    for tensor in tensors:
        data = memoryview(tensor.data).cast("B")
        if len(data) != tensor.size:
            raise FrameError(
                f"tensor {tensor.name} has {len(data)} bytes, its shape asks for {tensor.size}"
            )
        padding = -offset % _ALIGN
        yield bytes(padding)
        yield data
        offset += padding + len(data)


def _kind(value: int) -> Kind:
    if (kind := _KINDS.get(value)) is None:
        raise FrameError(f"frame kind {value} is unknown")
    return kind


def _meta(data: memoryview) -> Mapping[str, Any]:
    try:
        meta = json.loads(bytes(data)) if data else {}
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the frame's meta is not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise FrameError("the frame's meta is not an object")
    return meta


def _tensors(view: memoryview, at: int, length: int, count: int) -> Iterator[TensorView]:
    end = at + length
    offset = end
    for _ in range(count):
        name, datatype, shape, at = _read_entry(view, at, end)
        size = math.prod(shape) * datatype.size
        offset += -offset % _ALIGN
        if offset + size > len(view):
            raise FrameError(f"tensor {name} needs {size} bytes and the frame ends before that")
        yield TensorView(name, datatype, shape, view[offset : offset + size])
        offset += size
    if at != end or offset != len(view):
        raise FrameError("the frame has bytes that belong to no tensor")


def _read_entry(view: memoryview, at: int, end: int) -> tuple[str, Datatype, tuple[int, ...], int]:
    if at + _ENTRY.size > end:
        raise FrameError("the frame's tensor table is truncated")
    length, code, dimensions = _ENTRY.unpack_from(view, at)
    name_at = at + _ENTRY.size
    shape_at = name_at + length
    after = shape_at + 8 * dimensions
    if after > end or dimensions > _MAX_DIMENSIONS or code not in BY_CODE:
        raise FrameError("the frame's tensor table is damaged")
    try:
        name = bytes(view[name_at:shape_at]).decode()
    except UnicodeDecodeError:
        raise FrameError("the frame's tensor table is damaged") from None
    shape = struct.unpack_from(f"<{dimensions}Q", view, shape_at)
    return name, BY_CODE[code], shape, after
