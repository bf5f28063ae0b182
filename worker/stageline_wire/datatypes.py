"""Datatypes by their Open Inference Protocol names.

`code` is the byte that stands for the datatype in a frame. BYTES has no fixed size and never
crosses the ring: text is tokenised in the router.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Datatype:
    """One element type: its name in the protocol, its code in a frame, its size in bytes.

    There is one of each, so they are compared and hashed by what they are, not by their fields.
    """

    name: str
    code: int
    size: int


_ALL = (
    Datatype("BOOL", 1, 1),
    Datatype("UINT8", 2, 1),
    Datatype("UINT16", 3, 2),
    Datatype("UINT32", 4, 4),
    Datatype("UINT64", 5, 8),
    Datatype("INT8", 6, 1),
    Datatype("INT16", 7, 2),
    Datatype("INT32", 8, 4),
    Datatype("INT64", 9, 8),
    Datatype("FP16", 10, 2),
    Datatype("FP32", 11, 4),
    Datatype("FP64", 12, 8),
    Datatype("BF16", 14, 2),
)
DATATYPES: dict[str, Datatype] = {datatype.name: datatype for datatype in _ALL}
BY_CODE: dict[int, Datatype] = {datatype.code: datatype for datatype in _ALL}
