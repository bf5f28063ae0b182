"""How long microbatches take, learnt from those that came back. Pure.

A microbatch of n tokens that read r tokens of the KV cache takes its slowest stage about
a + b n + c r seconds (Sarathi-Serve, arXiv 2403.02310, and SGLang's dynamic chunking take the same
form). Least squares over all that came back, the older ones ever less.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf

_KEPT = 0.98  # of an observation's weight, with each that follows
_UNITS = 1024.0  # of r, so that the three sums have like sizes
_RIDGE = 1e-4
_WILD = 4.0  # times what was expected: counted as so much
_KNOWN = 4  # observations
_FIRST = 64  # tokens beside decoding ones, while nothing is known
LEAST = 16
"""Prompt tokens beside decoding ones, whatever they cost: prompts must get on."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What a microbatch computes: tokens, and tokens of the KV cache that they read in all."""

    tokens: int
    reads: int


class Pace:
    """`stretch`: a microbatch with prompt tokens beside decoding ones may take this many times
    what it takes without."""

    def __init__(self, stretch: float) -> None:
        self._stretch = stretch
        self._xx = [[0.0] * 3 for _ in range(3)]
        self._xy = [0.0] * 3
        self._seen = 0
        self._fitted: tuple[float, float, float] | None = None

    @property
    def boundless(self) -> bool:
        """Whether prompts go in whole, up to the chunk."""
        return isinf(self._stretch)

    def learn(self, extent: Extent, seconds: float) -> None:
        """A microbatch took its slowest stage so long."""
        if self._seen >= _KNOWN and (expected := self.seconds(extent)) > 0:
            seconds = min(seconds, _WILD * expected)
        x = (1.0, float(extent.tokens), extent.reads / _UNITS)
        for row, left in zip(self._xx, x, strict=True):
            for column, right in enumerate(x):
                row[column] = row[column] * _KEPT + left * right
        self._xy = [known * _KEPT + left * seconds for known, left in zip(self._xy, x, strict=True)]
        self._seen += 1
        self._fitted = None

    def seconds(self, extent: Extent) -> float:
        """What a microbatch takes, as far as is known."""
        a, b, c = self._fit()
        return a + b * extent.tokens + c * extent.reads / _UNITS

    def beside(self, decoding: Extent, present: Extent, start: int, limit: int) -> int:
        """Prompt tokens to take along.

        `decoding` is a microbatch of decoding tokens as they are now, `present` what this one has
        of them; the prompt's tokens from `start` on are to enter, `limit` at most.
        """
        if self._seen < _KNOWN:
            return min(_FIRST, limit)
        _, b, c = self._fit()
        left = max(self._stretch * self.seconds(decoding) - self.seconds(present), 0.0)
        each = b + c * start / _UNITS
        room = limit if each * limit <= left else int(left / each)
        return min(max(room, LEAST), limit)

    def apart(self, backlog: int, groups: int, limit: int) -> int:
        """Prompt tokens in a microbatch when nothing decodes: as many as let `groups` share the
        backlog, and not so few that the tokens cost less than the microbatch does."""
        a, b, _ = self._fit() if self._seen >= _KNOWN else (0.0, 1.0, 0.0)
        worth = max(_FIRST, int(a / b) if a < b * limit else limit)
        return min(max(-(-backlog // groups), worth), limit)

    def _fit(self) -> tuple[float, float, float]:
        if self._fitted is None:
            self._fitted = self._solve()
        return self._fitted

    def _solve(self) -> tuple[float, float, float]:
        """The best a, b, c of which none is negative."""
        names = [0, 1, 2]
        while True:
            found = _least_squares(self._xx, self._xy, names)
            low = min(found, key=lambda name: found[name])
            if found[low] >= 0 or len(names) == 1:
                a, b, c = (max(found.get(name, 0.0), 0.0) for name in range(3))
                return a, b, c
            names.remove(low)


def _least_squares(xx: list[list[float]], xy: list[float], names: list[int]) -> dict[int, float]:
    """Solve the normal equations for these unknowns, the others being zero."""
    rows = [[xx[i][j] * (1 + _RIDGE * (i == j)) for j in names] + [xy[i]] for i in names]
    for at in range(len(rows)):
        pivot = rows[at][at] or 1.0
        rows[at] = [value / pivot for value in rows[at]]
        for other in range(len(rows)):
            if other != at:
                factor = rows[other][at]
                rows[other] = [v - factor * p for v, p in zip(rows[other], rows[at], strict=True)]
    return {name: row[-1] for name, row in zip(names, rows, strict=True)}
