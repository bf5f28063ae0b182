"""Which rows of which requests make one microbatch. Pure: time is given, nothing waits here.

Requests with equal keys may share a microbatch. A request of more rows than a microbatch holds is
split; its last part may meet the next request. Parts come back by request, in order.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Part:
    """Rows [first, end) of one request."""

    request: int
    first: int
    end: int

    @property
    def rows(self) -> int:
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Batch:
    """The parts of one microbatch, in the order of their rows in it."""

    key: Hashable
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)


@dataclass(slots=True)
class _Open:
    due: float
    parts: list[Part] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)


class Batches:
    """At most one open microbatch for each key; `max_delay` in seconds."""

    def __init__(self, max_rows: int, max_delay: float) -> None:
        self._max_rows = max_rows
        self._max_delay = max_delay
        self._open: dict[Hashable, _Open] = {}

    def add(self, key: Hashable, request: int, rows: int, now: float) -> list[Batch]:
        """Deal the rows out; the microbatches that are full now."""
        full = []
        first = 0
        while first < rows:
            batch = self._open.setdefault(key, _Open(now + self._max_delay))
            end = min(rows, first + self._max_rows - batch.rows)
            batch.parts.append(Part(request, first, end))
            first = end
            if batch.rows == self._max_rows:
                full.append(self._close(key))
        return full + self.expire(now)

    def expire(self, now: float) -> list[Batch]:
        """The microbatches that have waited long enough."""
        return [self._close(key) for key, batch in list(self._open.items()) if batch.due <= now]

    def next_due(self) -> float | None:
        """When `expire` has something to give; None when nothing waits."""
        return min((batch.due for batch in self._open.values()), default=None)

    def discard(self, request: int) -> None:
        """Drop the rows of a request that nobody waits for any more."""
        for key, batch in list(self._open.items()):
            batch.parts = [part for part in batch.parts if part.request != request]
            if not batch.parts:
                del self._open[key]

    def _close(self, key: Hashable) -> Batch:
        return Batch(key, tuple(self._open.pop(key).parts))
