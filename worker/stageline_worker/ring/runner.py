"""The ring's thread: the only one that computes. It loads the model, then turns in sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch

from stageline_wire import FrameError, Kind
from stageline_worker.facts import Facts
from stageline_worker.leader.desk import Entry
from stageline_worker.microbatch import Microbatch, StageModel
from stageline_worker.ring.member import Member
from stageline_worker.ring.messages import Passing, frame_of, read_passing
from stageline_worker.ring.session import Session
from stageline_worker.ring.spans import Span, described
from stageline_worker.transport import Inlet, LinkEnded, LinkError, Outlet


class Source(Protocol):
    """Where stage 0 gets microbatches from, and where their results go."""

    def next(self, session: int) -> Entry | None: ...

    def returned(
        self, session: int, sequence: int, result: Microbatch | str, seconds: float
    ) -> None: ...


Onward = Callable[["_Turn", int, Passing], None]


class Runner:
    """Turns one stage of the ring, session after session."""

    def __init__(
        self, stage: int, stages: int, model: StageModel, member: Member, facts: Facts
    ) -> None:
        self._stage = stage
        self._before = (stage - 1) % stages
        self._after = (stage + 1) % stages
        self._kind = Kind.RESULT if stage == stages - 1 else Kind.MICROBATCH
        self._model = model
        self._member = member
        self._facts = facts

    def run(self, source: Source | None) -> None:
        """Until the member stops. `source` on stage 0 alone."""
        while (session := self._member.next_session()) is not None:
            self._model.reset()
            links = session.links()
            if links is None:
                continue
            self._facts.turning(serving=True)
            self._member.ready(session)
            turn = _Turn(session, *links, free=time.monotonic())
            try:
                if source is None:
                    self._relay(turn)
                else:
                    self._lead(turn, source)
            except LinkEnded:
                session.close("the stage before said END")
            except _OutletError as error:
                session.broken(self._after, f"its link from stage {self._stage} broke ({error})")
            except LinkError as error:
                session.broken(self._before, f"its link to stage {self._stage} broke ({error})")
            except FrameError as error:
                session.broken(self._before, str(error))
            self._facts.turning(serving=False)

    def _relay(self, turn: _Turn) -> None:
        while not turn.session.closed:
            if (frame := turn.inlet.receive()) is not None:
                self._pass(turn, frame.sequence, read_passing(frame), self._send)

    def _lead(self, turn: _Turn, source: Source) -> None:
        def hand_back(turn: _Turn, sequence: int, passing: Passing) -> None:
            source.returned(turn.session.number, sequence, passing.microbatch, passing.seconds)

        # A ring of one stage has no hop: what it computes is back.
        onward = hand_back if self._after == self._stage else self._send
        while not turn.session.closed:
            entry = source.next(turn.session.number)
            if entry is not None:
                passing = Passing(entry.microbatch, idle=entry.idle)
                self._pass(turn, entry.sequence, passing, onward)
            frame = turn.inlet.receive(None if entry is None else 0)
            if frame is not None:
                hand_back(turn, frame.sequence, read_passing(frame))

    def _pass(self, turn: _Turn, sequence: int, passing: Passing, onward: Onward) -> None:
        begin = time.monotonic()
        result = self._forward(passing.microbatch)
        end = time.monotonic()
        waited = 0.0 if passing.idle else begin - turn.end
        seconds, number = end - begin, turn.session.number
        self._facts.computed(number, sequence, seconds, waited, turn.outlet.hop_seconds)
        onward(turn, sequence, Passing(result, max(seconds, passing.seconds), passing.idle))
        sent = time.monotonic()
        what = described(passing.microbatch)
        times = (turn.free, begin, end, sent)
        self._facts.spans.add(Span(*what, number, sequence, *times, passing.idle))
        turn.end, turn.free = end, sent

    def _send(self, turn: _Turn, sequence: int, passing: Passing) -> None:
        try:
            turn.outlet.send(frame_of(self._kind, turn.session.number, sequence, passing))
        except LinkError as error:
            raise _OutletError(str(error)) from None

    def _forward(self, microbatch: Microbatch | str) -> Microbatch | str:
        if isinstance(microbatch, str):
            return microbatch
        try:
            with torch.inference_mode():
                return self._model.forward(microbatch)
        except Exception as error:  # data that no check foresaw must not end the stage
            return f"stage {self._stage} failed on this microbatch: {_sentence(error)}"


@dataclass(slots=True)
class _Turn:
    """A session while it turns here: `end` of the last computing, `free` of all about it."""

    session: Session
    inlet: Inlet
    outlet: Outlet
    free: float
    end: float = field(init=False)

    def __post_init__(self) -> None:
        self.end = self.free


class _OutletError(LinkError):
    """The link to the next stage broke, not the one from the stage before."""


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
