"""Flow control of a link, the same on every transport."""

from __future__ import annotations

import threading

from stageline_wire import Frame, FrameError
from stageline_worker.transport.seam import LinkError

WINDOW = 64
"""Credits of one link. A frame costs one for each 64 KiB that it has begun, but no more than 16:
4 MiB may be on their way, or four frames if these are larger."""
_UNIT = 64 << 10
_MOST_OF_A_FRAME = 16
_MOST = 1024
_QUIET = 0.1  # seconds


def price(size: int) -> int:
    """What it costs to send a frame of so many bytes, in credits."""
    return 1 + size // _UNIT if size < _UNIT * _MOST_OF_A_FRAME else _MOST_OF_A_FRAME


def granted(frame: Frame) -> int:
    """The number of credits in WELCOME or CREDIT. Raises FrameError."""
    value = frame.meta.get("credits")
    if not isinstance(value, int) or not 0 < value <= _MOST:
        raise FrameError(f"a {frame.kind.name} frame says credits: {value!r}")
    return value


class Credits:
    """The sender's side: `take` before each frame, `give` when the receiver has taken some off."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._free = 0
        self._broken: str | None = None

    def give(self, count: int) -> None:
        with self._condition:
            self._free += count
            self._condition.notify_all()

    def take(self, count: int) -> None:
        """Wait for credits and use them. Raises LinkError with the reason given to `break_off`."""
        with self._condition:
            self._condition.wait_for(lambda: self._free >= count or self._broken is not None)
            if self._broken is not None:
                raise LinkError(self._broken)
            self._free -= count

    def break_off(self, reason: str) -> bool:
        """No frame may follow. False when the link was broken off before."""
        with self._condition:
            if self._broken is not None:
                return False
            self._broken = reason
            self._condition.notify_all()
            return True


class Debt:
    """The receiver's side: what came and was not paid for, and when credits are worth a message.

    They go back in groups of half the window: few messages, and the sender never idles while the
    receiver keeps up. On a quiet link they go back sooner, for they also tell how long a hop takes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unpaid = 0
        self._outstanding = 0
        self._paid = 0.0

    def arrived(self, cost: int) -> None:
        """A frame of that price came. Raises LinkError when its sender had no credits for it."""
        with self._lock:
            self._outstanding += cost
            if self._outstanding > WINDOW:
                raise LinkError(f"it was sent more than its {WINDOW} credits allow")

    def taken(self, cost: int, now: float) -> int:
        """A frame of that price was received: the credits to give back now, often 0."""
        with self._lock:
            self._unpaid += cost
            if self._unpaid < WINDOW // 2 and now - self._paid < _QUIET:
                return 0
            count, self._unpaid, self._paid = self._unpaid, 0, now
            self._outstanding -= count
            return count
