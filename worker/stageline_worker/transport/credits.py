"""Flow control of a link, the same on every transport."""

from __future__ import annotations

import threading

from stageline_wire import Frame, FrameError
from stageline_worker.transport.seam import LinkError

CREDITS = 4
"""Frames on their way on one link, at most."""
_MOST = 1024


def granted(frame: Frame, key: str) -> int:
    """The number of credits in WELCOME or CREDIT. Raises FrameError."""
    value = frame.meta.get(key)
    if not isinstance(value, int) or not 0 < value <= _MOST:
        raise FrameError(f"a {frame.kind.name} frame says {key}: {value!r}")
    return value


class Credits:
    """The sender's side: `take` before each frame, `give` for each that the receiver took off."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._free = 0
        self._broken: str | None = None

    def give(self, count: int) -> None:
        with self._condition:
            self._free += count
            self._condition.notify_all()

    def take(self) -> None:
        """Wait for a credit and use it. Raises LinkError with the reason given to `break_off`."""
        with self._condition:
            self._condition.wait_for(lambda: self._free > 0 or self._broken is not None)
            if self._broken is not None:
                raise LinkError(self._broken)
            self._free -= 1

    def break_off(self, reason: str) -> bool:
        """No frame may follow. False when the link was broken off before."""
        with self._condition:
            if self._broken is not None:
                return False
            self._broken = reason
            self._condition.notify_all()
            return True


class Debt:
    """The receiver's side: how many frames wait, and when credits are worth a message.

    Credits go back in groups of half the window: half the messages, and the sender never idles
    while the receiver keeps up.
    """

    def __init__(self, credits: int) -> None:
        self._credits = credits
        self._group = max(1, credits // 2)
        self._lock = threading.Lock()
        self._unpaid = 0
        self._outstanding = 0

    def arrived(self) -> None:
        """Raises LinkError when the sender had no credit for this frame."""
        with self._lock:
            self._outstanding += 1
            if self._outstanding > self._credits:
                raise LinkError(f"it was sent more frames than its {self._credits} credits allow")

    def taken(self) -> int:
        """A frame was received: the number of credits to give back now, often 0."""
        with self._lock:
            self._unpaid += 1
            if self._unpaid < self._group:
                return 0
            count, self._unpaid = self._unpaid, 0
            self._outstanding -= count
            return count
