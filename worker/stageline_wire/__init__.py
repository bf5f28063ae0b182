"""What crosses a wire between router, leader and stages: one frame, one table of datatypes."""

from stageline_wire.datatypes import DATATYPES, Datatype
from stageline_wire.frame import (
    HEADER_LENGTH,
    Frame,
    FrameError,
    Kind,
    TensorView,
    decode,
    encode,
    frame_length,
)

__all__ = [
    "DATATYPES",
    "HEADER_LENGTH",
    "Datatype",
    "Frame",
    "FrameError",
    "Kind",
    "TensorView",
    "decode",
    "encode",
    "frame_length",
]
