"""A pipeline's trace in the forms that people look at: Chrome's trace format, and a picture. Pure.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU; both
ui.perfetto.dev and chrome://tracing read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stageline.v1 import pipeline_pb2 as pb

if TYPE_CHECKING:
    from PIL.Image import Image

_KINDS = {
    pb.SPAN_INFER: "infer",
    pb.SPAN_PREFILL: "prefill",
    pb.SPAN_DECODE: "decode",
    pb.SPAN_MIXED: "mixed",
    pb.SPAN_KIND_UNSPECIFIED: "failed",
}
_COLOURS = {
    "infer": "#4e79a7", "prefill": "#f28e2b", "decode": "#59a14f", "mixed": "#b6992d",
    "failed": "#e15759", "wait": "#d3d3d3", "send": "#9c755f",
}  # fmt: skip
_WIDTH, _LANE, _LEFT, _TOP = 1600, 44, 70, 40

Event = dict[str, Any]


def chrome(trace: pb.PipelineTrace) -> dict[str, Any]:
    """A document of trace events: a lane for each stage, an arrow for each hop."""
    begin = _extent(trace)[0]
    events: list[Event] = [_name("process_name", 0, trace.pipeline)]
    for stage in trace.stages:
        events.append(_name("thread_name", stage.stage, f"stage {stage.stage}"))
        for span in stage.spans:
            events += _events(stage.stage, span, begin)
    events += _hops(trace, begin)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def picture(trace: pb.PipelineTrace) -> Image:
    """Lanes of coloured bars, time from left to right. ImportError without Pillow."""
    from PIL import Image, ImageDraw

    begin, end = _extent(trace)
    scale = (_WIDTH - _LEFT - 10) / max(end - begin, 1e-9)
    size = (_WIDTH, _TOP + _LANE * len(trace.stages) + 10)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for at, (kind, colour) in enumerate(_COLOURS.items()):
        draw.rectangle((_LEFT + 110 * at, 8, _LEFT + 110 * at + 12, 20), fill=colour)
        draw.text((_LEFT + 110 * at + 18, 8), kind, fill="black")
    draw.text((_WIDTH - 200, 8), f"{trace.pipeline}: {1000 * (end - begin):.1f} ms", fill="black")
    for lane, stage in enumerate(trace.stages):
        top = _TOP + lane * _LANE
        draw.text((8, top + 12), f"stage {stage.stage}", fill="black")
        for span in stage.spans:
            for kind, since, until in _bars(span):
                left, right = (_LEFT + (when - begin) * scale for when in (since, until))
                draw.rectangle((left, top, max(left, right), top + _LANE - 8), fill=_COLOURS[kind])
    return image


def _bars(span: pb.Span) -> Iterator[tuple[str, float, float]]:
    """What a stage did: waiting while there was work, computing, sending."""
    if not span.idle:
        yield "wait", span.free, span.begin
    yield _KINDS[span.kind], span.begin, span.end
    yield "send", span.end, span.sent


def _events(stage: int, span: pb.Span, begin: float) -> Iterator[Event]:
    what = {
        "microbatch": span.sequence,
        "session": str(span.session),  # past what JavaScript's numbers hold
        "tokens": span.tokens,
        "sequences": span.sequences,
    }
    for kind, since, until in _bars(span):
        yield {
            "ph": "X", "pid": 0, "tid": stage, "name": kind, "cat": kind,
            "ts": 1e6 * (since - begin), "dur": 1e6 * (until - since), "args": what,
        }  # fmt: skip


def _hops(trace: pb.PipelineTrace, begin: float) -> Iterator[Event]:
    for before, after in zip(trace.stages, trace.stages[1:], strict=False):
        arrived = {(span.session, span.sequence): span for span in after.spans}
        for span in before.spans:
            if (there := arrived.get((span.session, span.sequence))) is None:
                continue
            hop = {"name": "hop", "cat": "hop", "pid": 0, "id": f"{before.stage}.{span.sequence}"}
            yield {**hop, "ph": "s", "tid": before.stage, "ts": 1e6 * (span.end - begin)}
            ts = 1e6 * (there.begin - begin)
            yield {**hop, "ph": "f", "bp": "e", "tid": after.stage, "ts": ts}


def _name(what: str, stage: int, name: str) -> Event:
    return {"ph": "M", "pid": 0, "tid": stage, "name": what, "args": {"name": name}}


def _extent(trace: pb.PipelineTrace) -> tuple[float, float]:
    """From the first time to the last."""
    spans = [span for stage in trace.stages for span in stage.spans]
    first = min((span.begin if span.idle else span.free for span in spans), default=0.0)
    return first, max((span.sent for span in spans), default=0.0)
