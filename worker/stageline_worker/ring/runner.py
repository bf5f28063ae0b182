"""The ring's thread: the only one that computes. It loads the model, then turns in sessions."""

from __future__ import annotations

import time
from typing import Protocol

import torch

from stageline_wire import FrameError, Kind
from stageline_worker.facts import Facts
from stageline_worker.leader.desk import Entry
from stageline_worker.microbatch import Microbatch, StageModel
from stageline_worker.ring.member import Member
from stageline_worker.ring.messages import Passing, frame_of, read_passing
from stageline_worker.ring.session import Session
from stageline_worker.transport import Inlet, LinkEnded, LinkError, Outlet


class Source(Protocol):
    """Where stage 0 gets microbatches from, and where their results go."""

    def next(self, session: int) -> Entry | None: ...

    def returned(
        self, session: int, sequence: int, result: Microbatch | str, seconds: float
    ) -> None: ...


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
            try:
                if source is None:
                    self._relay(session, *links)
                else:
                    self._lead(session, *links, source)
            except LinkEnded:
                session.close("the stage before said END")
            except _OutletError as error:
                session.broken(self._after, f"its link from stage {self._stage} broke ({error})")
            except LinkError as error:
                session.broken(self._before, f"its link to stage {self._stage} broke ({error})")
            except FrameError as error:
                session.broken(self._before, str(error))
            self._facts.turning(serving=False)

    def _relay(self, session: Session, inlet: Inlet, outlet: Outlet) -> None:
        while not session.closed:
            if (frame := inlet.receive()) is not None:
                passing = self._compute(session, frame.sequence, read_passing(frame), outlet)
                self._send(session, frame.sequence, passing, outlet)

    def _lead(self, session: Session, inlet: Inlet, outlet: Outlet, source: Source) -> None:
        while not session.closed:
            entry = source.next(session.number)
            if entry is not None:
                passing = Passing(entry.microbatch, idle=entry.idle)
                passing = self._compute(session, entry.sequence, passing, outlet)
                if self._after == self._stage:
                    self._hand_back(session, entry.sequence, passing, source)
                else:
                    self._send(session, entry.sequence, passing, outlet)
            frame = inlet.receive(None if entry is None else 0)
            if frame is not None:
                self._hand_back(session, frame.sequence, read_passing(frame), source)

    def _hand_back(self, session: Session, sequence: int, passing: Passing, source: Source) -> None:
        source.returned(session.number, sequence, passing.microbatch, passing.seconds)

    def _send(self, session: Session, sequence: int, passing: Passing, outlet: Outlet) -> None:
        try:
            outlet.send(frame_of(self._kind, session.number, sequence, passing))
        except LinkError as error:
            raise _OutletError(str(error)) from None

    def _compute(
        self, session: Session, sequence: int, passing: Passing, outlet: Outlet
    ) -> Passing:
        began = time.monotonic()
        result = self._forward(passing.microbatch)
        seconds = time.monotonic() - began
        self._facts.computed(session.number, sequence, seconds, outlet.hop_seconds)
        return Passing(result, max(seconds, passing.seconds), passing.idle)

    def _forward(self, microbatch: Microbatch | str) -> Microbatch | str:
        if isinstance(microbatch, str):
            return microbatch
        try:
            with torch.inference_mode():
                return self._model.forward(microbatch)
        except Exception as error:  # data that no check foresaw must not end the stage
            return f"stage {self._stage} failed on this microbatch: {_sentence(error)}"


class _OutletError(LinkError):
    """The link to the next stage broke, not the one from the stage before."""


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
