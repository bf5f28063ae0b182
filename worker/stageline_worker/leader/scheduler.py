"""Which microbatch enters the ring next. Pure: no I/O, no clock, no threads.

Work is of two sorts. An `Inference` is one microbatch. A `Generation` holds a slot of every
stage's KV cache while it runs: its tokens enter in chunks, which may follow one another into the
ring, then one token at a time, each when the token before it has come back.

A continuous ring (gLLM, arXiv 2504.14775): as many groups of decoding sequences are in flight as
there are stages, and each enters again the moment its tokens are back. A group is whatever is
ready, up to an equal share of all that decodes, so groups that grew apart grow together again.
Decoding tokens go first; prompt tokens fill the microbatch up to what `Pace` allows.

Whoever must leave before its end, because its session is lost or its place is needed, goes back to
those that wait, with all tokens it has; they are computed again when it is let in again.

A slot is given away at once when its sequence leaves: the ring keeps order, so at every stage the
old one's last tokens pass before the new one takes the slot over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from stageline_worker.leader.admission import Admission
from stageline_worker.leader.lanes import lane_of, together
from stageline_worker.leader.pace import LEAST, Extent, Pace
from stageline_worker.leader.sequences import Errand, Request, Run
from stageline_worker.leader.work import Generation, Inference, QueueFull, Step, Token
from stageline_worker.microbatch import Segment


@dataclass(slots=True)
class _Flight:
    errand: Errand | None = None
    runs: list[Run] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a ring can hold and take.

    `slots`: generations at once. `kv_tokens`: tokens of all of them. `max_len`: of a sequence.
    `chunk`: prompt tokens in one microbatch. `groups`: microbatches of generations in the ring.
    `in_flight`: microbatches in the ring. `max_waiting`: work that has not entered.
    `packs`: whether a microbatch may hold several sequences.
    """

    slots: int
    kv_tokens: int
    max_len: int
    chunk: int
    groups: int
    in_flight: int
    max_waiting: int
    packs: bool = True


class Scheduler:
    """Work that was accepted, from `add` until it ends, and what of it is in the ring."""

    def __init__(self, limits: Limits, pace: Pace) -> None:
        self._limits = limits
        self._pace = pace
        self._floor = Admission(limits.slots, limits.kv_tokens, limits.groups)
        self._errands: deque[Errand] = deque()
        self._requests: dict[int, Request] = {}
        self._flights: dict[int, _Flight] = {}
        self._groups = 0  # flights with runs
        self._suspects: list[Errand | Request] = []
        self._sequence = 0
        self._order = 0
        self._generation_next = True
        self._prompt_next = True

    @property
    def waiting(self) -> int:
        """Work that has not entered the ring, or must enter it anew."""
        return len(self._errands) + self._floor.waiting

    @property
    def running(self) -> int:
        """Microbatches in the ring."""
        return len(self._flights)

    @property
    def generating(self) -> int:
        """Generations that hold a slot."""
        return len(self._floor.runs)

    def add(self, work: Inference | Generation) -> None:
        """Accept work. Raises QueueFull."""
        if self.waiting >= self._limits.max_waiting:
            raise QueueFull
        if isinstance(work, Inference):
            self._errands.append(Errand(work.key))
            return
        self._order += 1
        request = Request(work, self._order, self._limits.max_len)
        self._requests[work.key] = request
        self._floor.wait(request)

    def cancel(self, key: int) -> None:
        """Forget this work wherever it is; what of it is in the ring comes back unheard."""
        if (request := self._requests.get(key)) is not None:
            self._forget(request)
            return
        self._errands = deque(errand for errand in self._errands if errand.key != key)
        for flight in self._flights.values():
            if flight.errand is not None and flight.errand.key == key:
                flight.errand = None
        self._suspects = [suspect for suspect in self._suspects if suspect.key != key]

    def next(self) -> Step | None:
        """The microbatch that enters now; None when none may."""
        if self._suspects:
            return self._alone(self._suspects[0]) if not self._flights else None
        if len(self._flights) >= self._limits.in_flight:
            return None
        first, second = self._generate, self._infer
        if not self._generation_next:
            first, second = second, first
        return first() or second()

    def canary(self) -> Step:
        """A step that belongs to no work."""
        return self._enter(_Flight())

    def expects(self, sequence: int) -> int:
        """How many tokens the microbatch brings back."""
        return sum(s.sampling is not None for s in self._flights[sequence].segments)

    def returned(self, sequence: int, tokens: Sequence[int], seconds: float) -> list[Token]:
        """A microbatch is back with a token for each segment that draws one.

        `seconds` is what its slowest stage took.
        """
        flight = self._leave(sequence)
        if flight.errand is not None:
            self._clear(flight.errand)
        if not flight.runs:
            return []
        self._pace.learn(_extent(flight.segments), seconds)
        events: list[Token] = []
        draw = 0
        for run, segment in zip(flight.runs, flight.segments, strict=True):
            if run.alive:
                run.request.suspicion.back(segment.start + segment.count)
                if segment.sampling is not None:
                    events.append(self._drew(run, tokens[draw], draw))
            draw += segment.sampling is not None
        if self._suspects:
            self._suspects = [work for work in self._suspects if work.suspicion.suspected]
        self._floor.settle()
        return events

    def failed(self, sequence: int) -> list[int]:
        """A stage could not compute this microbatch: the keys that end with it.

        Of several sequences in it any may be the cause: each is computed again, alone.
        """
        flight = self._leave(sequence)
        if flight.errand is not None:
            self._clear(flight.errand)
            return [flight.errand.key]
        requests = [run.request for run in flight.runs if run.alive]
        if len(flight.runs) == 1:
            for request in requests:
                self._forget(request)
            return [request.key for request in requests]
        for request in requests:
            request.suspicion.suspect()
            self._suspects.append(request)
            self._floor.put_back(self._floor.runs[request.key])
        return []

    def abort(self) -> list[int]:
        """The session is over, everything waits for the next.

        The keys of those that have ended too many sessions and end here.
        """
        errands = [f.errand for f in self._flights.values() if f.errand is not None]
        there = dict.fromkeys(run for f in self._flights.values() for run in f.runs if run.alive)
        present: list[Errand | Request] = [*errands, *(run.request for run in there)]
        for work in present:
            work.suspicion.lost()
        self._flights.clear()
        self._groups = self._sequence = 0
        self._errands.extendleft(reversed(errands))
        for run in list(self._floor.runs.values()):
            self._floor.put_back(run)
        ended = [work.key for work in present if work.suspicion.convicted]
        for key in ended:
            self.cancel(key)
        everything: list[Errand | Request] = [*self._errands, *self._requests.values()]
        self._suspects = [work for work in everything if work.suspicion.suspected]
        return ended

    # What enters

    def _infer(self) -> Step | None:
        if not self._errands:
            return None
        self._generation_next = True
        errand = self._errands.popleft()
        return self._enter(_Flight(errand), inference=errand.key)

    def _generate(self) -> Step | None:
        if self._groups >= self._limits.groups:
            return None
        self._floor.let_in()
        lane = lane_of(self._floor.ready, self._busy(), self._limits.groups)
        if self._limits.packs:
            parts = self._decoding(lane)
            parts += self._chunks(parts, lane)
        else:
            parts = self._single(lane)
        if not parts:
            return None
        self._generation_next = False
        return self._enter_runs(parts, lane)

    def _busy(self) -> set[int]:
        """Lanes of the groups in the ring."""
        return {flight.lane for flight in self._flights.values() if flight.runs}

    def _alone(self, suspect: Errand | Request) -> Step:
        """The ring is empty, and this alone enters it."""
        if isinstance(suspect, Errand):
            self._errands.remove(suspect)
            return self._enter(_Flight(suspect), inference=suspect.key)
        run = self._floor.runs.get(suspect.key) or self._floor.take_in(suspect)
        return self._enter_runs([self._chunk(run, self._limits.chunk, 0)], 0)

    def _decoding(self, lane: int) -> list[tuple[Run, Segment]]:
        """Those of the lane, up to a group's share."""
        floor = self._floor
        if not floor.ready:
            return []
        share = -(-floor.decoding // self._limits.groups)
        runs = together(floor.ready, lane, share, self._busy(), floor.sizes)
        taken = set(runs)
        floor.ready = deque(run for run in floor.ready if run not in taken)
        runs.sort(key=lambda run: run.slot or 0)
        return [(run, self._segment(run, 1, lane)) for run in runs]

    def _chunks(self, present: list[tuple[Run, Segment]], lane: int) -> list[tuple[Run, Segment]]:
        """Tokens of those that do not draw yet, the first let in first."""
        if not self._floor.prompts:
            return []
        parts: list[tuple[Run, Segment]] = []
        budget = self._budget(_extent([segment for _, segment in present]))
        while budget > 0 and self._floor.prompts:
            run, segment = self._chunk(self._floor.prompts[0], budget, lane)
            parts.append((run, segment))
            budget -= segment.count
        return parts

    def _single(self, lane: int) -> list[tuple[Run, Segment]]:
        """One sequence; those that decode and those that do not yet take turns."""
        prompts, ready = self._floor.prompts, self._floor.ready
        if prompts and (self._prompt_next or not ready):
            self._prompt_next = False
            return [self._chunk(prompts[0], self._limits.chunk, lane)]
        self._prompt_next = True
        if not ready:
            return []
        run = ready.popleft()
        return [(run, self._segment(run, 1, lane))]

    def _budget(self, present: Extent) -> int:
        """Prompt tokens beside what the microbatch has: an equal share of all that is there.

        A stage waits while the one before it has a longer microbatch than its own. So at
        saturation prompts enter over four rounds, that those of the next follow without a break.
        """
        limits, floor = self._limits, self._floor
        if self._pace.boundless:
            return limits.chunk
        decoding, backlog = floor.decoding, floor.backlog
        if not decoding:
            return self._pace.apart(backlog, limits.groups, limits.chunk)
        share = -(-decoding // limits.groups)
        held = sum(len(run.request.tokens) for run in floor.runs.values())
        usual = Extent(share, held * share // len(floor.runs))
        room = self._pace.beside(usual, present, floor.prompts[0].entered, limits.chunk)
        wanted = decoding + backlog // (4 if floor.waiting else 1)
        even = -(-wanted // limits.groups) - present.tokens
        return min(room, max(even, LEAST))

    def _chunk(self, run: Run, budget: int, lane: int) -> tuple[Run, Segment]:
        segment = self._segment(run, min(run.left, budget), lane)
        if not run.left:
            self._floor.prompts.remove(run)
        return run, segment

    def _segment(self, run: Run, count: int, lane: int) -> Segment:
        segment = run.request.segment(self._floor.place(run, lane), run.entered, count)
        run.entered += count
        return segment

    def _enter_runs(self, parts: list[tuple[Run, Segment]], lane: int) -> Step:
        self._groups += 1
        flight = _Flight(None, [run for run, _ in parts], [segment for _, segment in parts], lane)
        tokens: list[int] = []
        for run, segment in parts:
            tokens += run.request.tokens[segment.start : segment.start + segment.count]
        keys = tuple(run.request.key for run in flight.runs)
        return self._enter(flight, keys=keys, segments=tuple(flight.segments), tokens=tokens)

    def _enter(
        self,
        flight: _Flight,
        *,
        inference: int | None = None,
        keys: tuple[int, ...] = (),
        segments: tuple[Segment, ...] = (),
        tokens: Sequence[int] = (),
    ) -> Step:
        self._sequence += 1
        self._flights[self._sequence] = flight
        return Step(self._sequence, inference, keys, segments, tokens)

    # What comes back

    def _leave(self, sequence: int) -> _Flight:
        flight = self._flights.pop(sequence)
        self._groups -= bool(flight.runs)
        return flight

    def _drew(self, run: Run, token: int, draw: int) -> Token:
        finish = self._floor.drew(run, token)
        if finish:
            self._drop(run.request)
        return Token(run.request.key, token, finish, draw)

    def _forget(self, request: Request) -> None:
        self._floor.forget(request)
        self._drop(request)

    def _drop(self, request: Request) -> None:
        del self._requests[request.key]
        self._clear(request)

    def _clear(self, work: Errand | Request) -> None:
        if work in self._suspects:
            self._suspects.remove(work)


def _extent(segments: Sequence[Segment]) -> Extent:
    tokens = reads = 0
    for segment in segments:
        tokens += segment.count
        reads += segment.count * (segment.start + segment.count)
    return Extent(tokens, reads)
