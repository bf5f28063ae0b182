"""What a stage did of late, microbatch by microbatch. Kept in memory, a bounded number."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from stageline.v1 import pipeline_pb2 as pb
from stageline_worker.microbatch import Microbatch

KEPT = 8192


@dataclass(frozen=True, slots=True)
class Span:
    """One microbatch at one stage; times are seconds of the stage's monotonic clock.

    `free`: done with what it did before. `idle`: until `begin` the ring had no work.
    """

    kind: pb.SpanKind
    tokens: int
    sequences: int
    session: int
    sequence: int
    free: float
    begin: float
    end: float
    sent: float
    idle: bool


class Spans:
    """Filled by the ring's thread, read by any."""

    def __init__(self) -> None:
        self._spans: deque[Span] = deque(maxlen=KEPT)

    def add(self, span: Span) -> None:
        self._spans.append(span)

    def newest(self, count: int) -> list[pb.Span]:
        """The newest `count`, the oldest of them first."""
        kept = list(self._spans.copy())  # the copy is made in one go, whatever the ring does
        return [
            pb.Span(
                kind=span.kind,
                session=span.session,
                sequence=span.sequence,
                tokens=span.tokens,
                sequences=span.sequences,
                free=span.free,
                begin=span.begin,
                end=span.end,
                sent=span.sent,
                idle=span.idle,
            )
            for span in kept[max(0, len(kept) - count) :]
        ]


def described(microbatch: Microbatch | str) -> tuple[pb.SpanKind, int, int]:
    """What a microbatch is, its tokens (of an inference elements) and its sequences.

    Told by its shape, not segment by segment: decoding tokens come first, one for a segment.
    """
    if isinstance(microbatch, str):
        return pb.SPAN_KIND_UNSPECIFIED, 0, 0
    segments, tensors = microbatch.segments, microbatch.tensors
    if not segments:
        return pb.SPAN_INFER, max((tensor.numel() for tensor in tensors.values()), default=0), 0
    hidden = tensors.get("hidden_states")
    tokens = tensors["input_ids"].numel() if hidden is None else hidden.shape[1]
    if tokens == len(segments):
        return pb.SPAN_DECODE, tokens, tokens
    begins = segments[0].count == 1 and segments[0].sampling is not None
    return pb.SPAN_MIXED if begins else pb.SPAN_PREFILL, tokens, len(segments)
