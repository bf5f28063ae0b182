"""When a microbatch is overdue. Pure: the time is passed in.

What a trip round the ring may take is derived from what trips took: seconds for a unit of work
(a token, or an element of an image), where the work is that of every microbatch in the ring when
this one entered, because they go one after another. The floor covers what no measurement knows.
"""

from __future__ import annotations

from dataclasses import dataclass

_DECAY = 0.98


@dataclass(frozen=True, slots=True)
class _Trip:
    entered: float
    work: int
    queue: int


class Deadlines:
    """Microbatches in the ring, and how long each may take.

    A trip may take `floor + factor * measured seconds for its work` seconds.
    """

    def __init__(self, *, floor: float, factor: float) -> None:
        self._floor = floor
        self._factor = factor
        self._trips: dict[int, _Trip] = {}
        self._seconds_per_unit = 0.0

    def enter(self, sequence: int, work: int, now: float) -> None:
        """A microbatch of `work` units enters the ring."""
        queue = sum(trip.work for trip in self._trips.values())
        self._trips[sequence] = _Trip(now, work, queue + work)

    def leave(self, sequence: int, now: float) -> None:
        """It came back. The slowest trip is remembered, and slowly forgotten."""
        trip = self._trips.pop(sequence)
        measured = (now - trip.entered) / trip.queue
        self._seconds_per_unit = max(measured, self._seconds_per_unit * _DECAY)

    def clear(self) -> None:
        """The session is over; what was measured stays."""
        self._trips.clear()

    def overdue(self, now: float) -> tuple[int, float] | None:
        """The oldest microbatch past its deadline, and the seconds it has been in the ring."""
        for sequence, trip in self._trips.items():
            allowed = self._floor + self._factor * self._seconds_per_unit * trip.queue
            if now - trip.entered > allowed:
                return sequence, now - trip.entered
        return None
