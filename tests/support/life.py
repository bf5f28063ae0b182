"""One resource over time, and situations that it meets."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from stageline_operator.healing import Healing
from stageline_operator.notices import notices
from stageline_operator.observed import PodKey
from stageline_operator.planning import Planning
from stageline_operator.status import history, status
from support.objects import (
    NOW,
    STAGES,
    keys,
    pod,
    pods_of,
    record,
    report,
    resource,
    scene,
    stage_report,
)

A0, A1 = keys("aaa", 0, 1)
ONE = PodKey(*A0, 1)
PLANNED = Planning(record("aaa"))
REFUSED = Planning(refused="PlanRefused", message="it does not fit")


class Life:
    """One resource over time: what is written to its status stays there."""

    def __init__(self) -> None:
        self.status = {}
        self.writes = 0
        self.told = []
        self.again, self.waits = None, None

    def see(self, situation, seconds=0.0, planning=PLANNED, healing=None, generation=1, **spec):
        found = resource(self.status, generation, replicas=situation.wanted, **spec)
        seen = replace(situation.observed, resource=found)
        situation = replace(situation, observed=seen)
        healing = healing or Healing(history=history(situation))
        now = NOW + timedelta(seconds=seconds)
        update = status(situation, planning, healing, "", now)
        self.again, self.waits = update.again, update.waits
        if update.status is not None:
            self.writes += 1
            self.told.extend(notices(self.status, update.status))
            self.status = update.status
        return update.status

    def condition(self, kind):
        return next(each for each in self.status["conditions"] if each["type"] == kind)

    def stage(self, number=0):
        return next(each for each in self.status["stages"] if each["stage"] == number)


def loading(loaded=0, total=1000, **more):
    """One pipeline whose stage 1 loads."""
    told = (
        stage_report(0, state="Loaded"),
        stage_report(1, state="Loading", loaded_bytes=loaded, total_bytes=total, loads=0),
        stage_report(2, state="Loaded"),
    )
    pods = pods_of(A0) | {ONE: pod(ONE, ready=False)}
    return scene(A0, pods=pods, reports={A0: report(A0, "Waiting", told)}, **more)


def working(compute=0.0124, hop=0.00031):
    """One pipeline at work, with these times on each stage."""
    told = tuple(
        stage_report(stage, compute_seconds=compute, hop_seconds=hop) for stage in range(STAGES)
    )
    return scene(A0, reports={A0: report(A0, stages=told)})
