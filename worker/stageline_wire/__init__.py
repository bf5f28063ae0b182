"""What crosses a wire between router, leader and stages: one frame, one table of datatypes."""

from stageline_wire.datatypes import DATATYPES, Datatype
from stageline_wire.frame import Frame, FrameError, Kind, TensorView, decode, encode

__all__ = [
    "DATATYPES",
    "Datatype",
    "Frame",
    "FrameError",
    "Kind",
    "TensorView",
    "decode",
    "encode",
]
