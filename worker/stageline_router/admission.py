"""How much unanswered work a router holds at most, and when there is room again. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stageline_router.errors import Exhausted

MAX_BYTES = 1 << 30
_SHARE = 0.1  # of all places; once so many are free again, some of those who come back find one
_NEWEST = 0.1  # weight of the newest gap between two endings in their mean
_LONGEST = 60.0  # seconds


class Admission:
    """Counts requests, and the bytes that they brought. `clock` in seconds."""

    def __init__(
        self,
        max_requests: int,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._clock = clock
        self._last_end: float | None = None
        self._gap = 0.0
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def place(self, size: int) -> Iterator[None]:
        """A place for a request of `size` bytes, until it is answered. Raises Exhausted."""
        if self.requests >= self._max_requests:
            raise self._full(
                f"{self.requests} requests are waiting for their answers, and this router holds no "
                "more"
            )
        # A large request alone must pass, or it never would.
        if self.requests and self.bytes + size > self._max_bytes:
            raise self._full(
                f"the requests that wait for their answers hold {self.bytes >> 20} MiB, and this "
                f"one of {size >> 20} MiB does not fit beside them"
            )
        self.requests += 1
        self.bytes += size
        try:
            yield
        finally:
            self.requests -= 1
            self.bytes -= size
            self._ended(self._clock())

    @property
    def retry_after(self) -> float:
        """Seconds in which a tenth of the places comes free, as things go: 1 to 60."""
        return min(_LONGEST, max(1.0, self._gap * self._max_requests * _SHARE))

    def _ended(self, now: float) -> None:
        if self._last_end is not None:
            # While few wait, endings are far apart for want of requests.
            gap = min(now - self._last_end, _LONGEST / self._max_requests / _SHARE)
            self._gap += (gap - self._gap) * _NEWEST
        self._last_end = now

    def _full(self, why: str) -> Exhausted:
        seconds = self.retry_after
        return Exhausted(f"{why}: send it again in {seconds:.0f} s", seconds)
