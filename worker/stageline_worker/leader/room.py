"""Slots of the KV cache, and tokens of it in all. Pure."""

from __future__ import annotations

import heapq

_MARGIN = 16  # tokens


class Room:
    """The lowest free slot is given first, so that those who come together lie side by side."""

    def __init__(self, slots: int, tokens: int) -> None:
        self._free = list(range(slots))
        self._tokens = tokens
        self._held = 0
        self._taken = 0

    def has(self, tokens: int) -> bool:
        """Whether one more sequence of so many tokens fits, and all may grow a little then.

        A sequence always fits when it is alone.
        """
        growth = _MARGIN * (self._taken + 1)
        fits = not self._taken or self._held + tokens + growth <= self._tokens
        return bool(self._free) and fits

    @property
    def overfull(self) -> bool:
        """Whether somebody must leave; never with one sequence alone."""
        return self._held > self._tokens and self._taken > 1

    def take(self, tokens: int) -> int:
        """A slot for a sequence of so many tokens."""
        self._held += tokens
        self._taken += 1
        return heapq.heappop(self._free)

    def grow(self, tokens: int) -> None:
        self._held += tokens

    def give(self, slot: int, tokens: int) -> None:
        """The slot is free, and all that its sequence held."""
        self._held -= tokens
        self._taken -= 1
        heapq.heappush(self._free, slot)
