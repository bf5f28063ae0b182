"""Slots of the KV cache, and tokens of it in all. Pure."""

from __future__ import annotations

import heapq

_MARGIN = 16  # tokens


class Room:
    """Slots are in as many `lanes` of neighbours as there are groups in the ring: a stage reads the
    caches of those that lie side by side as one. In a lane the lowest free slot is given first."""

    def __init__(self, slots: int, tokens: int, lanes: int) -> None:
        self._free: list[list[int]] = [[] for _ in range(lanes)]
        for slot in range(slots):
            self._free[slot * lanes // slots].append(slot)
        self._lanes = [lane for lane, free in enumerate(self._free) for _ in free]
        self._tokens = tokens
        self._held = 0
        self._taken = 0

    def has(self, tokens: int) -> bool:
        """Whether one more sequence of so many tokens fits, and all may grow a little then.

        A sequence always fits when it is alone.
        """
        growth = _MARGIN * (self._taken + 1)
        fits = not self._taken or self._held + tokens + growth <= self._tokens
        return self._taken < len(self._lanes) and fits

    @property
    def overfull(self) -> bool:
        """Whether somebody must leave; never with one sequence alone."""
        return self._held > self._tokens and self._taken > 1

    def take(self, tokens: int) -> None:
        """For a sequence of so many tokens; which slot is open until it enters the ring."""
        self._held += tokens
        self._taken += 1

    def slot(self, lane: int) -> int:
        """One for a sequence that was let in: of this lane, or where most are free."""
        return heapq.heappop(self._free[lane] or max(self._free, key=len))

    def lane(self, slot: int) -> int:
        """The one that a slot is in."""
        return self._lanes[slot]

    def grow(self, tokens: int) -> None:
        self._held += tokens

    def give(self, slot: int | None, tokens: int) -> None:
        """The slot is free, if there was one, and all that its sequence held."""
        self._held -= tokens
        self._taken -= 1
        if slot is not None:
            heapq.heappush(self._free[self._lanes[slot]], slot)
