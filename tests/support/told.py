"""A situation, and what must be said of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from stageline_operator.healing import Healing
from stageline_operator.kinds import Object
from stageline_operator.observed import PodKey
from stageline_operator.planning import Planning
from stageline_operator.situation import Situation
from stageline_operator.status import status
from support.objects import NOW, keys, pod, pods_of, record, report, resource, scene

A0, A1 = keys("aaa", 0, 1)
(B0,) = keys("bbb", 0)
ONE, NEW = PodKey(*A0, 1), PodKey(*B0, 1)
PLANNED = Planning(record("aaa"))
NEWER = Planning(record("bbb", 2))


@dataclass
class Told:
    """A situation, and the conditions that must follow: `Ready=False Reason`, and words of it."""

    situation: Situation
    expected: tuple[str, ...]
    words: str = ""
    planning: Planning = PLANNED
    healing: Healing = field(default_factory=Healing)
    invalid: str = ""
    where: str = "Ready"
    """The condition that has the words."""

    def conditions(self) -> dict[str, Object]:
        update = status(self.situation, self.planning, self.healing, self.invalid, NOW)
        return {condition["type"]: condition for condition in update.status["conditions"]}


def sick(found: Object, key: PodKey = ONE, **more: object) -> Situation:
    """One pipeline, of which one stage's pod is this one, and the ring is open."""
    reports = {A0: report(A0, "Waiting", message="stage 1 is not heard")}
    return scene(A0, pods=pods_of(A0) | {key: found}, reports=reports, **more)


def profiling(**more: object) -> Situation:
    found = pod(**more)
    found["metadata"]["name"] = "llama-profile-0"
    return scene(found=resource(), front={}, profile_pod=found)
