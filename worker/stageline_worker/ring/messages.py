"""What passes between stages, as frames: HELLO, MICROBATCH and RESULT.

A microbatch that a stage could not compute goes on as a frame whose meta has `error`, so that it
comes back to the leader like any other and nobody waits for it.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from typing import Any

from stageline_wire import Frame, FrameError, Kind
from stageline_worker.microbatch import Microbatch, Sampling, Segment
from stageline_worker.tensors import from_view, to_view


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


def microbatch_frame(kind: Kind, session: int, sequence: int, microbatch: Microbatch) -> Frame:
    meta: dict[str, Any] = {}
    if microbatch.segments:
        meta["segments"] = [_pack(segment) for segment in microbatch.segments]
    if microbatch.outputs is not None:
        meta["outputs"] = microbatch.outputs
    tensors = tuple(to_view(name, tensor) for name, tensor in microbatch.tensors.items())
    return Frame(kind, session, sequence, meta, tensors)


def error_frame(kind: Kind, session: int, sequence: int, error: str) -> Frame:
    return Frame(kind, session, sequence, {"error": error})


def read_microbatch(frame: Frame) -> Microbatch | str:
    """The microbatch, or the sentence of the stage that could not compute it.

    Raises FrameError when the meta is not what `microbatch_frame` writes.
    """
    if (error := frame.meta.get("error")) is not None:
        return str(error)
    try:
        segments = tuple(_unpack(*segment) for segment in frame.meta.get("segments", ()))
        outputs = frame.meta.get("outputs")
        names = None if outputs is None else tuple(map(str, outputs))
    except TypeError as damaged:
        raise FrameError(f"the microbatch's description is damaged: {damaged}") from None
    tensors = {view.name: from_view(view) for view in frame.tensors}
    return Microbatch(tensors, segments, names)


def _pack(segment: Segment) -> list[Any]:
    drawn = None if segment.sampling is None else list(astuple(segment.sampling))
    return [segment.slot, segment.start, segment.count, drawn, segment.prompt]


def _unpack(
    slot: int, start: int, count: int, drawn: list[Any] | None, prompt: int | None
) -> Segment:
    return Segment(slot, start, count, _sampling(drawn), prompt)


def _sampling(drawn: list[Any] | None) -> Sampling | None:
    if drawn is None:
        return None
    # JSON makes a list of the banned ids.
    values: list[Any] = [tuple(field) if isinstance(field, list) else field for field in drawn]
    return Sampling(*values)
