"""One session as one worker has it: its two links, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

from stageline_worker.transport import Inlet, Outlet

OnBroken = Callable[[int, str], None]
"""Told which neighbour's link broke, and why; never for a session that was closed."""


class Session:
    """Links come from other threads; the ring's thread waits for both."""

    def __init__(self, number: int, on_broken: OnBroken) -> None:
        self.number = number
        self.outlet: Outlet | None = None
        self.inlet: Inlet | None = None
        self._connected = False
        self._told = False
        self._on_broken = on_broken
        self._changed = threading.Condition()
        self._closed: str | None = None

    @property
    def closed(self) -> bool:
        return self._closed is not None

    def set_outlet(self, outlet: Outlet) -> None:
        """The link to the next stage, which is being dialed."""
        with self._changed:
            self.outlet = outlet
            late = self._closed is not None
        if late:
            outlet.close()

    def connected(self) -> None:
        """The next stage has welcomed the link."""
        with self._changed:
            self._connected = True
            self._changed.notify_all()

    def set_inlet(self, inlet: Inlet) -> bool:
        """False when the session is over or has its inlet already."""
        with self._changed:
            if self._closed is not None or self.inlet is not None:
                return False
            self.inlet = inlet
            self._changed.notify_all()
            return True

    def links(self) -> tuple[Inlet, Outlet] | None:
        """Wait for both; None when the session closes before."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or (self.inlet and self._connected))
            if self.closed or self.inlet is None or self.outlet is None:
                return None
            return self.inlet, self.outlet

    def broken(self, stage: int, reason: str) -> None:
        """The link with `stage` broke: the leader is told, and the session is over here.

        In this order: the neighbours see their links end, and what they tell should come later.
        """
        with self._changed:
            is_news, self._told = not (self._told or self.closed), True
        if is_news:
            self._on_broken(stage, reason)
            self.close(reason)

    def finish(self, timeout: float) -> None:
        """Say END to the next stage, so that it takes the link's end for no failure."""
        if self.outlet is not None and not self.closed:
            self.outlet.finish(timeout)

    def close(self, reason: str) -> bool:
        """End it; both links go, whoever waits on them is let go. False when it was closed."""
        with self._changed:
            if self._closed is not None:
                return False
            self._closed = reason
            inlet, outlet = self.inlet, self.outlet
            self._changed.notify_all()
        if inlet is not None:
            inlet.close(reason)
        if outlet is not None:
            outlet.close()
        return True
