"""When a child is changed by somebody again and again: repair it, but do not fight. Pure.

Only the same wish repeated counts; a rollout that wishes something new each second is no quarrel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from stageline_operator.kinds import Object
from stageline_operator.labels import FIELD_MANAGER

OFTEN: Final = 5
WITHIN_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 30.0


@dataclass(slots=True)
class Quarrel:
    """How often one child had to be given one wish; times in seconds of one clock."""

    wish: str
    repairs: list[float] = field(default_factory=list)
    told: bool = False
    """Whether the user has been told of it."""

    def wait(self, wish: str, now: float) -> float:
        """Seconds to wait before this wish may be written; 0: it may be now."""
        if wish != self.wish or not self._is_fight(now):
            return 0.0
        return max(0.0, self.repairs[-1] + PAUSE_SECONDS - now)

    def repaired(self, wish: str, now: float) -> bool:
        """Count one repair; whether it has just become a fight of which the user should know."""
        if wish != self.wish:
            self.wish, self.repairs, self.told = wish, [], False
        self.repairs = [*self.repairs[-OFTEN:], now]
        news = self._is_fight(now) and not self.told
        self.told = self.told or news
        return news

    def _is_fight(self, now: float) -> bool:
        """More than OFTEN within a minute, or still going on at the pace that we keep."""
        if len(self.repairs) <= OFTEN:
            return False
        if not self.told:
            return now - self.repairs[0] <= WITHIN_SECONDS
        return now - self.repairs[-1] <= WITHIN_SECONDS


def who_changes(obj: Object) -> str:
    """The field manager, other than the operator, that wrote to the object's spec last."""
    others = [
        entry
        for entry in obj["metadata"].get("managedFields") or []
        if entry.get("manager") != FIELD_MANAGER and entry.get("subresource") is None
    ]
    newest = max(others, key=lambda entry: str(entry.get("time")), default=None)
    return str(newest["manager"]) if newest else "somebody who leaves no trace in managedFields"
