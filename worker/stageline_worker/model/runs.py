"""Which sequences of a decode step attend in one call.

A call over consecutive slots needs no copy of their keys, but reads each of them as far as the
longest goes. A run takes another sequence in while what is read for nothing costs less than a
call: measured on one CPU core for 16 and 32 sequences of 20 to 500 tokens, this rule is as fast
as one call where lengths are alike and as one call for each sequence where they are not (within
5 %), and faster than both in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_WASTE = 0.1  # of the tokens that are wanted
_CALL = 32  # tokens whose reading takes as long as a call


@dataclass(frozen=True, slots=True)
class Run:
    """Rows [row, row + len(lengths)) of a step, in slots [slot, slot + len(lengths)).

    `lengths` are the tokens that each row attends to, its own among them.
    """

    row: int
    slot: int
    lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens that one call reads of each slot."""
        return max(self.lengths)

    @property
    def even(self) -> bool:
        """Whether no row needs a mask."""
        return min(self.lengths) == self.longest


def runs(slots: Sequence[int], lengths: Sequence[int]) -> tuple[Run, ...]:
    """All rows in order; row i is in slots[i] and attends to lengths[i] tokens."""
    made: list[Run] = []
    begin = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or not _joins(slots, lengths, begin, end):
            made.append(Run(begin, slots[begin], tuple(lengths[begin:end])))
            begin = end
    return tuple(made)


def _joins(slots: Sequence[int], lengths: Sequence[int], begin: int, row: int) -> bool:
    if slots[row] != slots[row - 1] + 1:
        return False
    wanted = lengths[begin : row + 1]
    waste = len(wanted) * max(wanted) - sum(wanted)
    return waste <= _WASTE * sum(wanted) + _CALL
