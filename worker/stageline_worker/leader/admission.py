"""Which generations hold a slot, and which wait for one. Pure.

Whoever waits is let in by the order of the line, and with room to grow. One more urgent than some
that run takes the place of the least urgent; when the cache is full the youngest of those leaves.
Who leaves before its end stands in the line again, where it stood.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from stageline_worker.leader.line import Line
from stageline_worker.leader.room import Room
from stageline_worker.leader.sequences import Request, Run


class Admission:
    """`runs` by key; of these `prompts` have tokens to enter before they draw, `ready` have drawn
    and enter with what they drew, and the others are in the ring with a draw."""

    def __init__(self, slots: int, tokens: int, lanes: int) -> None:
        self.runs: dict[int, Run] = {}
        self.prompts: deque[Run] = deque()
        self.ready: deque[Run] = deque()
        self._room = Room(slots, tokens, lanes)
        self._line = Line()

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def decoding(self) -> int:
        """Runs that have nothing left to enter but what they draw."""
        return len(self.runs) - len(self.prompts)

    def sizes(self) -> Counter[int]:
        """How many of these there are by lane."""
        sizes = Counter(run.lane for run in self.runs.values())
        sizes.subtract(run.lane for run in self.prompts)
        return sizes

    @property
    def backlog(self) -> int:
        """Tokens that are to enter before their sequences draw."""
        return sum(run.left for run in self.prompts)

    def wait(self, request: Request) -> None:
        """Stand in the line."""
        self._line.add(request)

    def let_in(self) -> None:
        """All whose turn it is and for whom there is room."""
        while self._line:
            request, urgent = self._line.turn, self._line.urgent
            if not self._has_room(request):
                # What is free is kept for whoever has the turn.
                if self._has_room(urgent) or not self._oust_for(urgent):
                    return
                request = urgent
            self.take_in(request)

    def take_in(self, request: Request) -> Run:
        """There is a slot for it, out of turn if need be."""
        self._line.take(request)
        self._room.take(_needs(request))
        run = Run(request)
        self.runs[request.key] = run
        self.prompts.append(run)
        return run

    def place(self, run: Run, lane: int) -> int:
        """Its slot; where it has none yet, one in this lane if there is any."""
        if run.slot is None:
            run.slot = self._room.slot(lane)
            run.lane = self._room.lane(run.slot)
        return run.slot

    def put_back(self, run: Run) -> None:
        """It leaves, and waits again."""
        self._release(run)
        self._line.add(run.request)

    def drew(self, run: Run, token: int) -> str | None:
        """It has one more token; why it ended with it, None when it goes on."""
        finish = run.request.append(token)
        self._room.grow(1)
        if finish:
            self._release(run)
        else:
            self.ready.append(run)
        return finish

    def settle(self) -> None:
        """Whoever no longer fits waits until others have ended."""
        while self._room.overfull:
            victim = _last_of(self.runs.values())
            assert victim is not None
            self.put_back(victim)

    def forget(self, request: Request) -> None:
        """It ends, where it may be."""
        if (run := self.runs.get(request.key)) is not None:
            self._release(run)
        else:
            self._line.remove(request)

    def _has_room(self, request: Request) -> bool:
        return self._room.has(_needs(request))

    def _oust_for(self, request: Request) -> bool:
        """Make room for it at the cost of less urgent ones; False when there are too few."""
        while not self._has_room(request):
            victim = _last_of(run for run in self.runs.values() if not run.request.by_age)
            if victim is None or victim.request.priority <= request.priority:
                return False
            self.put_back(victim)
        return True

    def _release(self, run: Run) -> None:
        run.alive = False
        del self.runs[run.request.key]
        self._room.give(run.slot, _needs(run.request))
        for place in (self.ready, self.prompts):
            if run in place:
                place.remove(run)


def _last_of(runs: Iterable[Run]) -> Run | None:
    """The one that others need least: not let in by its age, least urgent, youngest."""

    def rank(run: Run) -> tuple[bool, int, int]:
        request = run.request
        return not request.by_age, request.priority, request.order

    return max(runs, key=rank, default=None)


def _needs(request: Request) -> int:
    """Tokens of the KV cache, that of the next token included."""
    return len(request.tokens) + 1
