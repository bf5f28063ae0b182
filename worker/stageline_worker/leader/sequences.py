"""A generation on its way: what is known of it for good, and what holds only while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from stageline_worker.leader.work import Generation
from stageline_worker.microbatch import Sampling, Segment

LOSSES = 3
"""Sessions in a row that work may take down, the last of them alone."""


@dataclass(slots=True, eq=False)
class Suspicion:
    """Whether work takes down the ring that it is in.

    It is suspected when all sessions in a row but one were lost with it in the ring, and nothing of
    it came back that had not come back before. A suspect goes round alone; a loss convicts it.
    """

    landed: int = 0  # how far its microbatches came back, in any session
    losses: int = 0  # since it last got further

    @property
    def suspected(self) -> bool:
        return self.losses >= LOSSES - 1

    @property
    def convicted(self) -> bool:
        return self.losses >= LOSSES

    def suspect(self) -> None:
        """Something it was part of went wrong: it must show that it was not at fault."""
        self.losses = LOSSES - 1

    def lost(self) -> None:
        """A session was lost with it in the ring."""
        self.losses += 1

    def back(self, end: int) -> None:
        """Its tokens before `end` have been round."""
        if end > self.landed:
            self.landed, self.losses = end, 0


@dataclass(slots=True, eq=False)
class Errand:
    """An inference."""

    key: int
    suspicion: Suspicion = field(default_factory=Suspicion)


class Request:
    """A generation from its acceptance to its end: all its tokens, whatever became of sessions."""

    def __init__(self, work: Generation, order: int, max_len: int) -> None:
        how = work.sampling
        prompt = len(work.tokens) - work.output
        self.key = work.key
        self.order = order
        self.priority = work.priority
        self.by_age = False  # it was let in before more urgent ones, and so none of them ousts it
        self.tokens = list(work.tokens)
        self.suspicion = Suspicion()
        self._stop = work.stop
        self._end = min(prompt + work.max_tokens, max_len)
        self._free = prompt + work.min_tokens  # from here on it may stop
        self._banned = tuple(sorted(work.stop))
        self._sampling = how
        counted = (how.repetition_penalty, how.presence_penalty, how.frequency_penalty)
        self._prompt = None if counted == (1.0, 0.0, 0.0) else prompt

    def segment(self, slot: int, start: int, count: int) -> Segment:
        """Its tokens [start, start + count), with a draw when they are its last."""
        draws = start + count == len(self.tokens)
        return Segment(slot, start, count, self._draw() if draws else None, self._prompt)

    def append(self, token: int) -> str | None:
        """It has one more token; why that was its last, None when it was not."""
        self.tokens.append(token)
        if token in self._stop:
            return "stop"
        return "length" if len(self.tokens) >= self._end else None

    def _draw(self) -> Sampling:
        how, position = self._sampling, len(self.tokens)
        return Sampling(  # dataclasses.replace takes three times as long, for each token
            how.seed,
            position,
            how.temperature,
            how.top_k,
            how.top_p,
            how.min_p,
            how.repetition_penalty,
            how.presence_penalty,
            how.frequency_penalty,
            self._banned if position < self._free else (),
            how.logprobs,
        )


@dataclass(slots=True, eq=False)
class Run:
    """A generation that was let in: its slot, from when it first enters the ring, the lane of that
    slot, and how many of its tokens have entered there."""

    request: Request
    slot: int | None = None
    lane: int = 0
    entered: int = 0
    alive: bool = True

    @property
    def left(self) -> int:
        """Tokens that are known and have not entered."""
        return len(self.request.tokens) - self.entered
