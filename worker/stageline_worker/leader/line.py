"""Generations that wait for a slot: who is next. Pure.

The most urgent goes first, within a priority the oldest. Every fourth place is given by age alone,
so whoever has n older ones before it is in after 4 n places, whatever comes.
"""

from __future__ import annotations

from bisect import insort

from stageline_worker.leader.sequences import Request

_BY_AGE = 4


class Line:
    """Those who come back after they have run stand where they stood: their age is kept."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._places = 0

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> None:
        insort(self._requests, request, key=lambda r: (r.priority, r.order))

    def remove(self, request: Request) -> None:
        self._requests.remove(request)

    @property
    def urgent(self) -> Request:
        """The oldest of the most urgent."""
        return self._requests[0]

    @property
    def turn(self) -> Request:
        """Whose turn it is."""
        if self._places % _BY_AGE < _BY_AGE - 1:
            return self.urgent
        return min(self._requests, key=lambda request: request.order)

    def take(self, request: Request) -> None:
        """A place is given to `request`."""
        request.by_age = request is not self.urgent
        self._places += 1
        self._requests.remove(request)
