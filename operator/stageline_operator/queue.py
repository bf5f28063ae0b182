"""The work queue: what to reconcile, one worker per key, again later when it went wrong.

A key that is added while it waits is run once; one that is added while it runs is run once more
after. Where keys wait in line, those that were worked on before go first, so that what is begun is
ended: of a thousand that start together each is soon done, instead of all at the end. A new one
waits no longer than half a minute for that.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_UNHURRIED: Final = 8.0
"""Runs in a second that resources which start one after the other may have."""
_LONGEST_SPACING: Final = 1.0
_NEW_WAITS: Final = 30.0
"""Seconds by which a key that is new stands further back in line than one that is known."""


class Later(Exception):
    """Raised by the work on a key: it did not succeed, try again."""

    def __init__(self, sentence: str, after: float | None = None) -> None:
        super().__init__(sentence)
        self.after = after
        """Seconds that were asked for; None: back off, longer each time."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """How long to wait after each failure in a row, in seconds."""

    first: float = 0.05
    longest: float = 60.0

    def after(self, failures: int, luck: float) -> float:
        """The wait after so many failures (1 or more); `luck` in [0, 1) spreads them by a half."""
        doubled: float = min(self.longest, self.first * 2.0 ** min(failures - 1, 62))
        return doubled * (0.5 + luck / 2)


class Pace:
    """How far apart the runs of one key are to be, from how many there are of all. Pure."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._last = 0.0
        self._rate = 0.0

    def rate(self, now: float) -> float:
        """Runs in the last second or so."""
        return self._rate * math.exp(min(self._last - now, 0.0))

    def ran(self, now: float) -> float:
        """Count a run; seconds until the same key may run again."""
        self._rate = 1 + self.rate(now)
        self._last = now
        wished = self._least * (self._rate / _UNHURRIED) ** 2
        return max(self._least, min(wished, _LONGEST_SPACING))


class WorkQueue(Generic[K]):
    """Keys to be worked on. `work` returns seconds after which to look again, None for never.

    `spacing` is the least time in seconds from the end of one run of a key to its next: the first
    event of many is answered at once, and the others together. Where many keys move at the same
    time it grows with them, to 1 s: then events are waited for longer than by one alone.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        workers: int = 4,
        back_off: BackOff | None = None,
        spacing: float = 0.0,
        failed: Callable[[K, Exception, float], None] = lambda key, error, wait: None,
    ) -> None:
        self._work = work
        self._workers = workers
        self._back_off = back_off or BackOff()
        self._failed = failed
        self._ready: asyncio.PriorityQueue[tuple[float, int, K]] = asyncio.PriorityQueue()
        self._turns = itertools.count()
        self._waiting: dict[K, float] = {}
        self._running: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._not_before: dict[K, float] = {}
        self._pace = Pace(spacing)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to work, in the running loop."""
        names = (f"reconcile worker {number}" for number in range(self._workers))
        self._tasks = [asyncio.create_task(self._run(), name=name) for name in names]

    async def stop(self) -> None:
        """Break off what runs, forget what waits."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def add(self, key: K) -> None:
        """Have it worked on as soon as may be: at once, unless somebody asked for patience."""
        if (not_before := self._not_before.get(key, 0.0)) > self._now():
            self.add_after(key, not_before - self._now())
            return
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        if key in self._waiting:
            return
        self._waiting[key] = self._now()
        if key not in self._running:
            place = self._now() + (0.0 if key in self._not_before else _NEW_WAITS)
            self._ready.put_nowait((place, next(self._turns), key))

    def add_after(self, key: K, seconds: float) -> None:
        """Have it worked on then; an earlier time that was asked for before stands."""
        due = self._now() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(due, self._due, key)

    def forget(self, key: K) -> None:
        """Its failures count no more and nothing is due: the object is gone."""
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()

    @property
    def depth(self) -> int:
        """Keys that wait, those that are due later not counted."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Keys that are worked on."""
        return len(self._running)

    def rate(self) -> float:
        """Runs in the last second or so."""
        return self._pace.rate(self._now())

    def oldest_waiting(self) -> float:
        """Seconds that the oldest key has waited; 0 when none waits."""
        return self._oldest(self._waiting)

    def oldest_running(self) -> float:
        """Seconds that the longest work has taken until now; 0 when there is none."""
        return self._oldest(self._running)

    @property
    def alive(self) -> bool:
        """Whether every worker that was started still works."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _run(self) -> None:
        while True:
            _, _, key = await self._ready.get()
            del self._waiting[key]
            self._running[key] = self._now()
            try:
                await self._run_one(key)
            finally:
                del self._running[key]
                if self._waiting.pop(key, None) is not None:
                    self.add(key)

    async def _run_one(self, key: K) -> None:
        try:
            again = await self._work(key)
        except Exception as error:  # a worker must survive whatever one key brings about
            self._failures[key] = self._failures.get(key, 0) + 1
            wait = self._wait(key, error)
            if isinstance(error, Later) and error.after is not None:
                self._not_before[key] = self._now() + wait
            self.add_after(key, wait)
            self._failed(key, error, wait)
        else:
            self._failures.pop(key, None)
            self._not_before[key] = self._now() + self._pace.ran(self._now())
            if again is not None:
                self.add_after(key, again)

    def _wait(self, key: K, error: Exception) -> float:
        if isinstance(error, Later) and error.after is not None:
            return error.after
        return self._back_off.after(self._failures[key], random.random())

    def _oldest(self, since: dict[K, float]) -> float:
        return self._now() - min(since.values()) if since else 0.0

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
