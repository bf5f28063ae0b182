"""How benchmarks print their figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One figure, and the most that it should be, where there is such a thing."""

    what: str
    value: float
    unit: str
    most: float | None = None

    @property
    def verdict(self) -> str:
        """How the figure stands to its target."""
        if self.most is None:
            return ""
        return (
            f"{'within' if self.value <= self.most else 'OVER'} {self.most:g} {self.unit}".rstrip()
        )


def show(*lines: Line) -> None:
    """A table: figure, unit, target."""
    width = max(len(line.what) for line in lines)
    for line in lines:
        text = f"{line.what:<{width}}  {line.value:8.2f} {line.unit:<12} {line.verdict}"
        print(text.rstrip())


def breakdown(calls: Counter[tuple[str, str]], number: int) -> None:
    """The calls of each verb and kind, the most first."""
    for (verb, kind), count in calls.most_common():
        print(f"  {count / number:6.2f}  {verb:<6} {kind}")
