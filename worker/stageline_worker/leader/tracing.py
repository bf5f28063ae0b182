"""Spans of all stages on one clock, the leader's.

The stages are asked over their control streams, first a few times for their clock alone: the answer
that came soonest tells it best (Cristian, Probabilistic clock synchronization, 1989).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stageline.v1 import pipeline_pb2 as pb

_SECONDS = 5.0
_CLOCK_ROUNDS = 3
_ALL = 2**32 - 1

Ask = Callable[[pb.AskTrace], None]
"""Passes the question on to every stage that is attached, and tells `asked` which those are."""


@dataclass(frozen=True, slots=True)
class _Clock:
    """Seconds to add to a stage's time, and by how much it may be wrong."""

    offset: float
    error: float


class Tracing:
    """One gathering at a time; the answers come from the threads of control streams."""

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._changed = threading.Condition()
        self._id = 0
        self._missing: set[int] | None = None
        self._answers: dict[int, tuple[pb.StageTrace, float]] = {}

    def gather(self, ask: Ask, spans: int) -> list[pb.StageTrace]:
        """The newest `spans` of each stage (0: all) that answers within a few seconds."""
        with self._one:
            deadline = time.monotonic() + _SECONDS
            clocks: dict[int, _Clock] = {}
            for _ in range(_CLOCK_ROUNDS):
                for stage, clock in self._clocks(ask, deadline):
                    if stage not in clocks or clock.error < clocks[stage].error:
                        clocks[stage] = clock
            found = self._round(ask, spans or _ALL, deadline)
        stages = sorted(found.keys() & clocks.keys())
        return [_on_clock(found[stage][0], stage, clocks[stage]) for stage in stages]

    def asked(self, question: int, stages: Iterable[int]) -> None:
        """These stages were asked."""
        with self._changed:
            if question == self._id:
                self._missing = set(stages) - self._answers.keys()
                self._changed.notify_all()

    def answered(self, stage: int, trace: pb.StageTrace) -> None:
        """A stage's answer."""
        now = time.monotonic()
        with self._changed:
            if trace.id != self._id:
                return
            self._answers[stage] = (trace, now)
            if self._missing is not None:
                self._missing.discard(stage)
            self._changed.notify_all()

    def _clocks(self, ask: Ask, deadline: float) -> list[tuple[int, _Clock]]:
        sent = time.monotonic()
        answers = self._round(ask, 0, deadline)
        return [
            (stage, _Clock((sent + came) / 2 - trace.now, (came - sent) / 2))
            for stage, (trace, came) in answers.items()
        ]

    def _round(
        self, ask: Ask, spans: int, deadline: float
    ) -> dict[int, tuple[pb.StageTrace, float]]:
        with self._changed:
            self._id += 1
            self._missing = None
            self._answers = {}
            question = pb.AskTrace(id=self._id, spans=spans)
        ask(question)
        with self._changed:
            self._changed.wait_for(lambda: self._missing == set(), deadline - time.monotonic())
            return self._answers


def _on_clock(trace: pb.StageTrace, stage: int, clock: _Clock) -> pb.StageTrace:
    trace.stage = stage
    trace.now += clock.offset
    trace.error = clock.error
    for span in trace.spans:
        span.free += clock.offset
        span.begin += clock.offset
        span.end += clock.offset
        span.sent += clock.offset
    return trace
