"""Tensors of the protocol: raw bytes or typed contents in, raw bytes out. Pure.

A shape is only a claim. It is held against the bytes that came before anything is made from it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stageline.oip import grpc_service_pb2 as oip
from stageline_router.errors import Invalid
from stageline_wire import DATATYPES, TensorView

_MAX_DIMENSIONS = 8
_MAX_ELEMENTS = 1 << 16  # of BYTES, because each becomes an object
_LENGTH = struct.Struct("<I")
# datatype: field of InferTensorContents, struct letter
_TYPED = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
    "BYTES": ("bytes_contents", ""),
}
_FIELDS = sorted({field for field, _ in _TYPED.values()})
_Declared = Any  # ModelInferRequest.InferInputTensor


@dataclass(frozen=True, slots=True)
class Input:
    """One input as a client sent it: `data` row-major and little-endian, or `elements` of BYTES."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview = b""
    elements: tuple[bytes, ...] = ()

    def view(self) -> TensorView:
        """The same bytes for a frame. BYTES has none."""
        return TensorView(self.name, DATATYPES[self.datatype], self.shape, self.data)


def read_inputs(request: oip.ModelInferRequest) -> dict[str, Input]:
    """The inputs by name. Raises Invalid with what is wrong."""
    if not request.inputs:
        raise Invalid("the request has no input")
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise Invalid(
            f"the request has {len(request.inputs)} inputs and {len(raw)} raw_input_contents: "
            "send one for each input, in the same order, or none"
        )
    found: dict[str, Input] = {}
    for index, declared in enumerate(request.inputs):
        if declared.name in found:
            raise Invalid(f"input {declared.name} is there twice")
        shape = _shape(declared)
        found[declared.name] = (
            _from_raw(declared, shape, raw[index]) if raw else _from_contents(declared, shape)
        )
    return found


def write_tensor(
    response: oip.ModelInferResponse,
    name: str,
    datatype: str,
    shape: Sequence[int],
    data: bytes,
) -> None:
    """Append an output and its raw contents."""
    response.outputs.add(name=name, datatype=datatype, shape=shape)
    response.raw_output_contents.append(data)


def write_strings(response: oip.ModelInferResponse, name: str, values: Sequence[bytes]) -> None:
    """Append a BYTES output of shape [values]."""
    data = b"".join(_LENGTH.pack(len(value)) + value for value in values)
    write_tensor(response, name, "BYTES", [len(values)], data)


def _shape(declared: _Declared) -> tuple[int, ...]:
    name, shape = declared.name, tuple(declared.shape)
    if declared.datatype not in DATATYPES and declared.datatype != "BYTES":
        known = ", ".join([*DATATYPES, "BYTES"])
        raise Invalid(f"input {name} has the unknown datatype {declared.datatype!r}: use {known}")
    if len(shape) > _MAX_DIMENSIONS:
        raise Invalid(f"input {name} has {len(shape)} dimensions: at most {_MAX_DIMENSIONS} go")
    if any(size < 0 for size in shape):
        raise Invalid(f"input {name} has shape {list(shape)}: no dimension can be negative")
    return shape


def _from_raw(declared: _Declared, shape: tuple[int, ...], data: bytes) -> Input:
    name, datatype = declared.name, declared.datatype
    if any(getattr(declared.contents, field) for field in _FIELDS):
        raise Invalid(f"input {name} has contents beside raw_input_contents: send one of the two")
    if datatype == "BYTES":
        _check_count(name, shape)
        return _strings(name, shape, _split(name, shape, data))
    wanted = math.prod(shape) * DATATYPES[datatype].size
    if wanted != len(data):
        raise Invalid(
            f"input {name} has shape {list(shape)} of {datatype}, that is {wanted} bytes, "
            f"and {len(data)} came"
        )
    return Input(name, datatype, shape, data)


def _from_contents(declared: _Declared, shape: tuple[int, ...]) -> Input:
    name, datatype = declared.name, declared.datatype
    if datatype not in _TYPED:
        raise Invalid(f"input {name} is {datatype}, which has no typed contents: send it raw")
    field, letter = _TYPED[datatype]
    if used := [f for f in _FIELDS if f != field and getattr(declared.contents, f)]:
        raise Invalid(f"input {name} is {datatype} and has {used[0]}: use {field}")
    values = getattr(declared.contents, field)
    if datatype == "BYTES":
        _check_count(name, shape)
        return _strings(name, shape, values)
    if math.prod(shape) != len(values):
        raise Invalid(
            f"input {name} has shape {list(shape)}, that is {math.prod(shape)} values, and "
            f"{len(values)} came in {field}"
        )
    try:
        data = struct.pack(f"<{len(values)}{letter}", *values)
    except struct.error:
        raise Invalid(f"input {name} has a value that {datatype} cannot hold") from None
    return Input(name, datatype, shape, data)


def _check_count(name: str, shape: tuple[int, ...]) -> None:
    if (count := math.prod(shape)) > _MAX_ELEMENTS:
        raise Invalid(
            f"input {name} has shape {list(shape)}, that is {count} elements: one request takes "
            f"{_MAX_ELEMENTS}"
        )


def _strings(name: str, shape: tuple[int, ...], elements: Sequence[bytes]) -> Input:
    if math.prod(shape) != len(elements):
        raise Invalid(
            f"input {name} has shape {list(shape)}, that is {math.prod(shape)} elements, and "
            f"{len(elements)} came"
        )
    return Input(name, "BYTES", shape, elements=tuple(elements))


def _split(name: str, shape: tuple[int, ...], data: bytes) -> list[bytes]:
    elements: list[bytes] = []
    count = math.prod(shape)
    at = 0
    while at < len(data):
        if len(elements) == count:
            raise Invalid(
                f"input {name} has shape {list(shape)}, that is {count} elements, and "
                f"{len(data) - at} bytes are left after them"
            )
        if at + _LENGTH.size > len(data):
            raise Invalid(f"input {name} ends within the length of element {len(elements)}")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            raise Invalid(
                f"element {len(elements)} of input {name} says it has {length} bytes, "
                f"{len(data) - at} are left"
            )
        elements.append(data[at : at + length])
        at += length
    return elements
