"""How much unanswered work a router holds at most. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stageline_router.errors import Exhausted

MAX_BYTES = 1 << 30


class Admission:
    """Counts requests, and the bytes that they brought."""

    def __init__(self, max_requests: int, max_bytes: int = MAX_BYTES) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0

    @contextmanager
    def place(self, size: int) -> Iterator[None]:
        """A place for a request of `size` bytes, until it is answered. Raises Exhausted."""
        if self.requests >= self._max_requests:
            raise Exhausted(
                f"{self.requests} requests are waiting for their answers, and this router holds no "
                "more: send it again later"
            )
        # A large request alone must pass, or it never would.
        if self.requests and self.bytes + size > self._max_bytes:
            raise Exhausted(
                f"the requests that wait for their answers hold {self.bytes >> 20} MiB, and this "
                f"one of {size >> 20} MiB does not fit beside them: send it again later"
            )
        self.requests += 1
        self.bytes += size
        try:
            yield
        finally:
            self.requests -= 1
            self.bytes -= size
