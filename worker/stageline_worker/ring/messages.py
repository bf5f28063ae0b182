"""What passes between stages, as frames: HELLO, MICROBATCH and RESULT.

A microbatch that a stage could not compute goes on as a frame whose meta has `error`, so that it
comes back to the leader like any other and nobody waits for it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stageline_wire import DATATYPES, Frame, FrameError, Kind, TensorView
from stageline_worker.microbatch import Microbatch
from stageline_worker.ring.segments import pack, unpack
from stageline_worker.tensors import from_view, to_view

_SEGMENTS = "segments"


@dataclass(frozen=True, slots=True)
class Passing:
    """What goes from stage to stage: a microbatch, or the sentence of a stage that failed on it.

    `seconds` is what the slowest of the stages before took to compute it. `idle`: the ring had
    nothing to do before it came, so nobody is to blame that stages waited.
    """

    microbatch: Microbatch | str
    seconds: float = 0.0
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """First on a link: who calls, in which session, of which plan."""

    session: int
    plan_hash: str
    revision: str
    stage: int
    incarnation: int


def hello_frame(hello: Hello) -> Frame:
    meta = {key: value for key, value in asdict(hello).items() if key != "session"}
    return Frame(Kind.HELLO, hello.session, meta=meta)


def read_hello(frame: Frame) -> Hello:
    """Raises FrameError when something is missing or of another type."""
    try:
        hello = Hello(frame.session, **frame.meta)
    except TypeError:
        raise FrameError(f"a HELLO with {sorted(frame.meta)} is none of this version") from None
    numbers = (hello.stage, hello.incarnation)
    if not all(isinstance(number, int) for number in numbers):
        raise FrameError("a HELLO must have numbers for stage and incarnation")
    return hello


def frame_of(kind: Kind, session: int, sequence: int, passing: Passing) -> Frame:
    """The frame of a microbatch, or of a failure. A RESULT goes without segments."""
    meta: dict[str, Any] = {"seconds": passing.seconds}
    if passing.idle:
        meta["idle"] = True
    microbatch = passing.microbatch
    if isinstance(microbatch, str):
        return Frame(kind, session, sequence, {**meta, "error": microbatch})
    if microbatch.outputs is not None:
        meta["outputs"] = microbatch.outputs
    tensors = [to_view(name, tensor) for name, tensor in microbatch.tensors.items()]
    if microbatch.segments and kind is Kind.MICROBATCH:
        meta[_SEGMENTS] = len(microbatch.segments)
        data = pack(microbatch.segments)
        tensors.append(TensorView(_SEGMENTS, DATATYPES["UINT8"], (len(data),), data))
    return Frame(kind, session, sequence, meta, tuple(tensors))


def read_passing(frame: Frame) -> Passing:
    """Raises FrameError when the frame is not what `frame_of` makes."""
    meta = frame.meta
    seconds = meta.get("seconds")
    if not isinstance(seconds, (int, float)):
        raise FrameError(f"the microbatch says that it took {seconds!r} seconds")
    error = meta.get("error")
    microbatch = _read_microbatch(frame) if error is None else str(error)
    return Passing(microbatch, seconds, meta.get("idle") is True)


def _read_microbatch(frame: Frame) -> Microbatch:
    outputs = frame.meta.get("outputs")
    if outputs is not None and not isinstance(outputs, list):
        raise FrameError("the microbatch's outputs are no list")
    names = None if outputs is None else tuple(map(str, outputs))
    count = frame.meta.get(_SEGMENTS)
    if count is None:
        return Microbatch({view.name: from_view(view) for view in frame.tensors}, (), names)
    *views, packed = frame.tensors or (None,)
    if packed is None or packed.name != _SEGMENTS or not isinstance(count, int):
        raise FrameError("the microbatch's segments are missing")
    segments = unpack(packed.data, count)
    return Microbatch({view.name: from_view(view) for view in views if view}, segments, names)
