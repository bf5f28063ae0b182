"""A ring in simulated time: the real scheduler, stages that only take as long as they are said to.

Stage 0 does what the ring's thread does: it hands a result to the scheduler, asks it for a
microbatch, computes it, and so on; it computes nothing while it does anything else.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from stageline_worker.leader.pace import Pace
from stageline_worker.leader.scheduler import Limits, Scheduler
from stageline_worker.leader.work import Generation, Inference, Step
from stageline_worker.microbatch import Sampling
from stageline_worker.timing import Timing

HOP = 0.0002


def linear(base: float, token: float, read: float = 0.0) -> Callable[[Step], float]:
    """Seconds of a microbatch: for its being there, for each token, for each token read."""

    def seconds(step: Step) -> float:
        reads = sum(s.count * (s.start + s.count) for s in step.segments)
        return base + token * len(step.tokens) + read * reads

    return seconds


def prompt(key: int, size: int, output: int, priority: int = 0) -> Generation:
    """A generation of exactly `output` tokens."""
    sampling = Sampling(seed=key, position=0)
    return Generation(key, [1] * size, output, sampling, frozenset(), priority=priority)


@dataclass
class Stage:
    """`free`: at this time it is done with what it has. `busy`: seconds of computing."""

    seconds: Callable[[Step], float]
    queue: deque[tuple[Step, float]] = field(default_factory=deque)
    free: float = 0.0
    spans: list[tuple[float, float]] = field(default_factory=list)

    def busy(self, begin: float, end: float) -> float:
        """The share of this time in which it computed."""
        overlaps = (min(e, end) - max(b, begin) for b, e in self.spans)
        return sum(max(0.0, overlap) for overlap in overlaps) / (end - begin)


class Ring:
    """Give it work with `at`, let it `run`, look at `tokens`: the times of each key's tokens."""

    def __init__(
        self,
        costs: list[Callable[[Step], float]],
        *,
        stretch: float = Timing().stretch,
        hop: float = HOP,
        **limits: int,
    ) -> None:
        stages = len(costs)
        fields = {
            "slots": 16 * stages, "kv_tokens": 10**9, "max_len": 4096, "chunk": 512,
            "groups": stages, "in_flight": stages + 1, "max_waiting": 10**6, **limits,
        }  # fmt: skip
        self.now = 0.0
        self._hop = hop
        self.scheduler = Scheduler(Limits(**fields), Pace(stretch))
        self.stages = [Stage(cost) for cost in costs]
        self.arrived: dict[int, float] = {}
        self.tokens: dict[int, list[float]] = defaultdict(list)
        self.steps: list[Step] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._results: deque[tuple[Step, float]] = deque()

    def at(self, when: float, work: Generation | Inference) -> None:
        def arrive() -> None:
            self.arrived[work.key] = self.now
            self.scheduler.add(work)
            self._lead()

        self._push(when, arrive)

    def run(self, until: float = float("inf")) -> None:
        """Until nothing is left to do, or this time."""
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()

    def gaps(self, keys: list[int]) -> list[float]:
        """Seconds between one token and the next, of all these, in order of size."""
        pairs = (itertools.pairwise(self.tokens[key]) for key in keys)
        return sorted(later - earlier for times in pairs for earlier, later in times)

    def _push(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), event))

    def _lead(self) -> None:
        stage = self.stages[0]
        if self.now < stage.free:
            return
        if self._results:
            step, seconds = self._results.popleft()
            draws = sum(segment.sampling is not None for segment in step.segments)
            for event in self.scheduler.returned(step.sequence, [1] * draws, seconds):
                self.tokens[event.key].append(self.now)
            if step.inference is not None:
                self.tokens[step.inference].append(self.now)
        if (step := self.scheduler.next()) is not None:
            self.steps.append(step)
            self._compute(0, step, 0.0)
        elif self._results:
            self._lead()

    def _compute(self, at: int, step: Step, slowest: float) -> None:
        stage = self.stages[at]
        seconds = stage.seconds(step)
        stage.free = self.now + seconds
        stage.spans.append((self.now, stage.free))

        def done() -> None:
            passed = (step, max(slowest, seconds))
            self._push(self.now + self._hop, lambda: self._arrive(at + 1, passed))
            self._next(at)

        self._push(stage.free, done)

    def _arrive(self, at: int, passed: tuple[Step, float]) -> None:
        if at == len(self.stages):
            self._results.append(passed)
            self._lead()
        else:
            self.stages[at].queue.append(passed)
            self._next(at)

    def _next(self, at: int) -> None:
        if at == 0:
            self._lead()
        elif self.stages[at].queue and self.now >= self.stages[at].free:
            self._compute(at, *self.stages[at].queue.popleft())
