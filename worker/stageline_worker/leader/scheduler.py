"""Which microbatch enters the ring next. Pure: no I/O, no clock, no threads.

Work is of two sorts. An `Inference` is one microbatch. A `Generation` holds a slot of every
stage's KV cache while it lives: its prompt enters in chunks, which may follow one another into
the ring, then one token at a time, each when the token before it has come back.

Sorts take turns, and within each the longest waiting goes first, so nothing starves. A slot is
given away at once when its generation ends: the ring keeps order, so at every stage the old
sequence's last tokens pass before the new one takes the slot over.

A `Step` may carry parts of several generations; for now it carries one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stageline_worker.microbatch import Sampling, Segment


class QueueFull(Exception):
    """As much work waits as may wait."""


@dataclass(frozen=True, slots=True)
class Inference:
    """Tensors in, tensors out: one microbatch."""

    key: int


@dataclass(frozen=True, slots=True)
class Generation:
    """A prompt and how to go on from it. `sampling` gives all but the position."""

    key: int
    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    stop: frozenset[int]


@dataclass(frozen=True, slots=True)
class Part:
    """What a step computes for one generation: these tokens, at this place."""

    key: int
    segment: Segment
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class Step:
    """One microbatch: an inference's (`inference` is its key) or parts of generations."""

    sequence: int
    inference: int | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A generation has one more token; with a finish reason it was the last."""

    key: int
    token: int
    finish: str | None


@dataclass(slots=True, eq=False)
class _Sequence:
    work: Generation
    slot: int
    computed: int = 0  # tokens that have entered the ring; 0: it may go back to the queue
    last: int = 0
    drawn: int = 0  # tokens that came back
    alive: bool = True


@dataclass(slots=True)
class _Flight:
    inference: int | None = None
    sequences: list[_Sequence] = field(default_factory=list)


class Scheduler:
    """Work that was accepted, from `add` until it ends, and what of it is in the ring.

    `slots`: generations at once. `chunk`: prompt tokens in one microbatch. `in_flight`:
    microbatches in the ring. `max_waiting`: work that has not entered. `max_len`: tokens of a
    whole sequence.
    """

    def __init__(
        self, *, slots: int, chunk: int, in_flight: int, max_waiting: int, max_len: int
    ) -> None:
        self._chunk = chunk
        self._in_flight = in_flight
        self._max_waiting = max_waiting
        self._max_len = max_len
        self._free = deque(range(slots))
        self._inferences: deque[Inference] = deque()
        self._prompts: deque[Generation] = deque()
        self._sequences: dict[int, _Sequence] = {}
        self._ready: deque[_Sequence] = deque()
        self._flights: dict[int, _Flight] = {}
        self._sequence = 0
        self._generation_next = True

    @property
    def waiting(self) -> int:
        """Work that has not entered the ring."""
        return len(self._inferences) + len(self._prompts)

    @property
    def running(self) -> int:
        """Microbatches in the ring."""
        return len(self._flights)

    @property
    def generating(self) -> int:
        """Generations that hold a slot."""
        return len(self._sequences)

    def add(self, work: Inference | Generation) -> None:
        """Accept work. Raises QueueFull."""
        if self.waiting >= self._max_waiting:
            raise QueueFull
        if isinstance(work, Inference):
            self._inferences.append(work)
        else:
            self._prompts.append(work)

    def cancel(self, key: int) -> None:
        """Forget this work wherever it is; what of it is in the ring comes back unheard."""
        self._inferences = deque(w for w in self._inferences if w.key != key)
        self._prompts = deque(w for w in self._prompts if w.key != key)
        if key in self._sequences:
            self._release(self._sequences[key])
        for flight in self._flights.values():
            if flight.inference == key:
                flight.inference = None

    def next(self) -> Step | None:
        """The microbatch that enters now; None when none may."""
        if len(self._flights) >= self._in_flight:
            return None
        first, second = self._generate, self._infer
        if not self._generation_next:
            first, second = second, first
        return first() or second()

    def canary(self) -> Step:
        """A step that belongs to no work."""
        return self._enter(_Flight())

    def returned(self, sequence: int, tokens: Sequence[int]) -> list[Token]:
        """A microbatch is back with a token for each part that draws one."""
        events: list[Token] = []
        for part, token in zip(self._flights.pop(sequence).sequences, tokens, strict=True):
            if part.alive:
                events.append(self._drew(part, token))
        return events

    def expects(self, sequence: int) -> int:
        """How many tokens the microbatch brings back."""
        return len(self._flights[sequence].sequences)

    def failed(self, step: Step) -> list[int]:
        """A stage could not compute this microbatch: the keys that end with it."""
        flight = self._flights.pop(step.sequence)
        if step.inference is not None:
            return [] if flight.inference is None else [step.inference]
        keys = [part.key for part in step.parts if part.key in self._sequences]
        for key in keys:
            self._release(self._sequences[key])
        return keys

    def abort(self) -> list[int]:
        """The session is over: the keys that end with it. What had not entered waits on."""
        keys = [f.inference for f in self._flights.values() if f.inference is not None]
        self._flights.clear()
        self._sequence = 0
        for sequence in reversed(list(self._sequences.values())):
            self._release(sequence)
            if sequence.computed:
                keys.append(sequence.work.key)
            else:
                self._prompts.appendleft(sequence.work)
        return keys

    def _generate(self) -> Step | None:
        while self._free and self._prompts:
            self._take_in(self._prompts.popleft())
        if not self._ready:
            return None
        self._generation_next = False
        sequence = self._ready.popleft()
        part, draws = self._part(sequence)
        return self._enter(_Flight(sequences=[sequence] if draws else []), parts=(part,))

    def _infer(self) -> Step | None:
        if not self._inferences:
            return None
        self._generation_next = True
        key = self._inferences.popleft().key
        return self._enter(_Flight(inference=key), inference=key)

    def _enter(
        self, flight: _Flight, inference: int | None = None, parts: tuple[Part, ...] = ()
    ) -> Step:
        self._sequence += 1
        self._flights[self._sequence] = flight
        return Step(self._sequence, inference, parts)

    def _take_in(self, work: Generation) -> None:
        sequence = _Sequence(work, self._free.popleft())
        self._sequences[work.key] = sequence
        self._ready.append(sequence)

    def _part(self, sequence: _Sequence) -> tuple[Part, bool]:
        work, start = sequence.work, sequence.computed
        size = len(work.prompt)
        tokens = work.prompt[start : start + self._chunk] if start < size else [sequence.last]
        sequence.computed = end = start + len(tokens)
        draws = end >= size
        sampling = replace(work.sampling, position=end) if draws else None
        if not draws:
            self._ready.append(sequence)
        segment = Segment(sequence.slot, start, len(tokens), sampling)
        return Part(work.key, segment, tokens), draws

    def _drew(self, sequence: _Sequence, token: int) -> Token:
        work = sequence.work
        sequence.last = token
        sequence.drawn += 1
        finish = None
        if token in work.stop:
            finish = "stop"
        elif sequence.drawn >= work.max_tokens or sequence.computed + 1 >= self._max_len:
            finish = "length"
        if finish:
            self._release(sequence)
        else:
            self._ready.append(sequence)
        return Token(work.key, token, finish)

    def _release(self, sequence: _Sequence) -> None:
        sequence.alive = False
        del self._sequences[sequence.work.key]
        if sequence in self._ready:
            self._ready.remove(sequence)
        self._free.append(sequence.slot)
