"""Tensors as people and JSON write them, to and from the protocol's raw bytes.

Raw bytes are row-major and little-endian; an element of BYTES is its length, 4 bytes, and itself.
"""

from __future__ import annotations

import ast
import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stageline_cli.failure import Failure
from stageline_wire.datatypes import DATATYPES

_FORMATS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_NPY_DATATYPES = {
    "b1": "BOOL", "u1": "UINT8", "u2": "UINT16", "u4": "UINT32", "u8": "UINT64",
    "i1": "INT8", "i2": "INT16", "i4": "INT32", "i8": "INT64",
    "f2": "FP16", "f4": "FP32", "f8": "FP64",
}  # fmt: skip
_NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor; `raw` has exactly the bytes that datatype and shape ask for."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes

    @property
    def size(self) -> int:
        """How many elements the shape asks for."""
        return math.prod(self.shape)

    def values(self, start: int = 0, count: int | None = None) -> list[Any]:
        """Elements [start, start + count) of the flat tensor, all without `count`."""
        end = self.size if count is None else min(start + count, self.size)
        if self.datatype == "BYTES":
            return [text.decode(errors="replace") for text in _texts(self.raw)][start:end]
        size = DATATYPES[self.datatype].size
        return _unpack(self.datatype, self.raw[start * size : end * size], end - start)

    def check(self) -> Tensor:
        """Raise Failure when the bytes do not go with datatype and shape: never trust a server."""
        if self.datatype == "BYTES":
            fits = sum(1 for _ in _texts(self.raw)) == self.size
        elif self.datatype in DATATYPES:
            fits = len(self.raw) == self.size * DATATYPES[self.datatype].size
        else:
            raise Failure(f"{self.name} has the datatype {self.datatype}, which is unknown here")
        if not fits or any(size < 0 for size in self.shape):
            raise Failure(
                f"{self.name} came with {len(self.raw)} bytes, which is not "
                f"{self.datatype} {list(self.shape)}"
            )
        return self


def from_texts(name: str, texts: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    """A BYTES tensor of these texts."""
    return Tensor(name, "BYTES", shape, b"".join(map(_sized, texts)))


def from_json(name: str, value: Any, datatype: str | None) -> Tensor:
    """A tensor of nested lists. Without a datatype their elements choose one."""
    shape = _shape(name, value)
    flat = list(_flat(value))
    datatype = datatype or _guess(flat)
    if datatype == "BYTES":
        if not all(isinstance(text, str) for text in flat):
            raise Failure(f"{name} is BYTES: write its elements as JSON strings")
        return from_texts(name, flat, shape)
    try:
        return Tensor(name, datatype, shape, _pack(datatype, flat))
    except KeyError:
        raise Failure(f"{name} has the datatype {datatype}, which is unknown here") from None
    except (struct.error, OverflowError, TypeError) as error:
        raise Failure(f"{name} is {datatype} and its values are not: {error}") from None


def from_file(name: str, path: Path, datatype: str | None) -> Tensor:
    """A tensor from a .npy file, or from a file with JSON in it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {path} for {name}: {error.strerror}") from None
    if data.startswith(_NPY_MAGIC):
        return _from_npy(name, path, data)
    try:
        return from_json(name, json.loads(data), datatype)
    except (ValueError, RecursionError):
        raise Failure(f"{path} for {name} is neither a .npy file nor JSON") from None


def _from_npy(name: str, path: Path, data: bytes) -> Tensor:
    try:
        wide = data[6] > 1
        (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
        start = (12 if wide else 10) + length
        header = ast.literal_eval(data[start - length : start].decode("latin-1"))
        order, kind = header["descr"][0], header["descr"][1:]
        shape = tuple(int(size) for size in header["shape"])
        fortran = bool(header["fortran_order"])
    except (struct.error, IndexError, ValueError, SyntaxError, KeyError, TypeError):
        raise Failure(f"the header of {path} is damaged: save the array again") from None
    if kind not in _NPY_DATATYPES or order not in "<|" or fortran:
        raise Failure(
            f"{path} holds {order}{kind}{' in Fortran order' if fortran else ''}: save it as a "
            "little-endian C-ordered array of numbers or booleans"
        )
    return Tensor(name, _NPY_DATATYPES[kind], shape, data[start:]).check()


def _shape(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        return (1,)
    inner = {_shape(name, item) if isinstance(item, list) else () for item in value}
    if len(inner) > 1:
        raise Failure(f"{name} is ragged: make its lists at each level equally long")
    return (len(value), *(inner.pop() if inner else ()))


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _guess(flat: list[Any]) -> str:
    for kind, datatype in ((str, "BYTES"), (bool, "BOOL"), (float, "FP32")):
        if any(isinstance(value, kind) for value in flat):
            return datatype
    return "INT64"


def _sized(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _texts(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at + 4 <= len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        if at + 4 + length > len(raw):
            return
        yield raw[at + 4 : at + 4 + length]
        at += 4 + length


def _pack(datatype: str, flat: list[Any]) -> bytes:
    if datatype != "BF16":
        return struct.pack(f"<{len(flat)}{_FORMATS[datatype]}", *flat)
    words = struct.unpack(f"<{len(flat)}I", struct.pack(f"<{len(flat)}f", *flat))
    return struct.pack(f"<{len(flat)}H", *(_upper_half(word) for word in words))


def _upper_half(word: int) -> int:
    """The bfloat16 nearest to a float32, both as bits; ties to even, NaN stays NaN."""
    if word & 0x7FFFFFFF > 0x7F800000:
        return word >> 16 | 0x40
    return (word + 0x7FFF + (word >> 16 & 1)) >> 16


def _unpack(datatype: str, raw: bytes, count: int) -> list[Any]:
    if datatype != "BF16":
        return list(struct.unpack(f"<{count}{_FORMATS[datatype]}", raw))
    words = struct.unpack(f"<{count}H", raw)
    return list(struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *(w << 16 for w in words))))
