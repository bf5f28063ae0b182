"""How soon there is room again, judged by how fast work ends. Pure: the time is passed in."""

from __future__ import annotations

_SMOOTHING = 0.1
_LEAST, _MOST = 1.0, 60.0  # seconds


class DrainRate:
    """Seconds between two ends of work, a moving average."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._gap: float | None = None

    def ended(self, now: float) -> None:
        """Work ended, well or badly."""
        if self._last is not None:
            gap = now - self._last
            step = _SMOOTHING if self._gap is not None else 1.0
            self._gap = (self._gap or 0.0) * (1 - step) + gap * step
        self._last = now

    def seconds(self, count: int, now: float) -> float:
        """Until so many more have ended, 1 to 60 s; with nothing to judge by the most."""
        if self._gap is None or self._last is None:
            return _MOST
        gap = max(self._gap, (now - self._last) / 2)  # it may have stalled meanwhile
        return min(max(count * gap, _LEAST), _MOST)
