"""Deal the layers of a model to the stages of a pipeline: contiguous, even, and within memory.

A pipeline is as fast as its slowest stage, so the partition sought has the least bottleneck: the
least possible time of its slowest stage. Among the partitions with that bottleneck the one with
the least sum of squared times is taken (the others as even as can be), and among those the one
whose earlier stages hold more. All figures are whole numbers, so equal means equal, and the same
input gives the same partition everywhere.

Every stage has at least one layer, and a stage may differ from the others: in speed, in memory,
and in what it holds beside its layers (the embedding on the first, the head on the last).

Bottleneck. best[k][j] is the least bottleneck of the first j layers on the first k stages:

    best[k][j] = min over i < j of max(best[k-1][i], time of layers i..j on stage k)

The time falls as i rises. best[k-1] does not rise with i in general (a stage must not be empty,
and may be slow), but of two starts the later one is never worse when its best is not higher. The
starts that remain form a stack on which best rises and the time falls: their crossing is found by
bisection. Memory only cuts off the earliest starts. O(stages · layers · log layers).

Evenness. With every stage held to that bottleneck, the least sum of squares is a second dynamic
program. The square of a sum over i..j is convex in its ends, which makes the best start rise with
the end, so each stage's row is solved by halves. O(stages · layers · log layers) again.

1,000 layers on 64 stages take a fraction of a second.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, lcm


@dataclass(frozen=True, slots=True)
class Place:
    """A stage that waits for its layers."""

    work: int = 0  # of what it holds beside its layers
    memory: int = 0  # bytes of what it holds beside its layers
    speed: int = 100  # work is done in proportion to it
    capacity: int | None = None  # bytes; None is unknown, and taken as enough


@dataclass(frozen=True, slots=True)
class _Stage:
    """A place, with the sums up to each layer that turn a range of layers into time and bytes."""

    place: Place
    work: list[int]
    memory: list[int]
    slowness: int  # time of one unit of work

    def time(self, start: int, end: int) -> int:
        return (self.work[end] - self.work[start] + self.place.work) * self.slowness

    def earliest_starts(self, limit: float) -> list[int]:
        """For each end, the first start from where the layers fit in memory and in `limit`."""
        capacity = inf if self.place.capacity is None else self.place.capacity
        room = capacity - self.place.memory
        start, starts = 0, []
        for end in range(len(self.work)):
            while start < end and (
                self.memory[end] - self.memory[start] > room or self.time(start, end) > limit
            ):
                start += 1
            starts.append(start)
        return starts


def deal(
    work: Sequence[int], memory: Sequence[int], places: Sequence[Place]
) -> tuple[int, ...] | None:
    """How many layers each place gets; None when no partition fits in memory.

    `work` and `memory` (bytes) have one entry a layer.
    """
    work_sums, memory_sums = [0, *accumulate(work)], [0, *accumulate(memory)]
    fastest = lcm(*(place.speed for place in places))
    stages = [_Stage(place, work_sums, memory_sums, fastest // place.speed) for place in places]
    bottleneck = _least_bottleneck(stages, len(work))
    return None if bottleneck == inf else _most_even(stages, len(work), bottleneck)


def fewest_stages(
    memory: Sequence[int], place: Callable[[int, int], Place], least: int, most: int
) -> int | None:
    """The smallest number of stages, from `least` to `most`, on which the layers fit in memory.

    `place(stage, stages)` is the stage'th of so many; only a last stage may depend on how many.
    O(most · layers).
    """
    layers = len(memory)
    sums = [0, *accumulate(memory)]
    reached = [True] + [False] * layers
    for stages in range(1, min(most, layers) + 1):
        if stages >= least and _reach(reached, sums, place(stages - 1, stages))[layers]:
            return stages
        reached = _reach(reached, sums, place(stages - 1, stages + 1))
    return None


def _reach(reached: list[bool], sums: list[int], place: Place) -> list[bool]:
    """Where this stage can end, if the one before it can end where `reached` is true."""
    room = inf if place.capacity is None else place.capacity - place.memory
    ends, latest = [False], None
    for end in range(1, len(sums)):
        if reached[end - 1]:
            latest = end - 1
        ends.append(latest is not None and sums[end] - sums[latest] <= room)
    return ends


def _least_bottleneck(stages: Sequence[_Stage], layers: int) -> float:
    """Time of the slowest stage of the best partition; infinite when none fits."""
    best: list[float] = [0] + [inf] * layers
    for stage in stages:
        best = _extend(best, stage)
    return best[layers]


def _extend(best: list[float], stage: _Stage) -> list[float]:
    """The least bottleneck up to each layer, with one stage more."""
    earliest = stage.earliest_starts(inf)
    longer: list[float] = [inf] * len(best)
    starts: list[int] = []
    for end in range(1, len(best)):
        newest = best[end - 1]
        if newest < inf:
            while starts and best[starts[-1]] >= newest:
                starts.pop()
            starts.append(end - 1)
        first = bisect_left(starts, earliest[end])
        crossing = _crossing(starts, first, best, stage, end)
        for start in starts[max(crossing - 1, first) : crossing + 1]:
            longer[end] = min(longer[end], max(best[start], stage.time(start, end)))
    return longer


def _crossing(starts: list[int], first: int, best: list[float], stage: _Stage, end: int) -> int:
    """Index, from `first`, of the first start where what came before weighs more than the stage."""
    return bisect_left(
        starts, True, lo=first, key=lambda start: best[start] >= stage.time(start, end)
    )


def _most_even(stages: Sequence[_Stage], layers: int, bottleneck: float) -> tuple[int, ...]:
    """The partition with the least sum of squared times, no stage above `bottleneck`."""
    costs: list[float] = [0] + [inf] * layers
    rows = []
    for stage in stages:
        costs, starts = _extend_evenly(costs, stage, bottleneck)
        rows.append(starts)
    sizes, end = [], layers
    for starts in reversed(rows):
        sizes.append(end - starts[end])
        end = starts[end]
    return tuple(reversed(sizes))


def _extend_evenly(
    costs: list[float], stage: _Stage, bottleneck: float
) -> tuple[list[float], list[int]]:
    """The least sum of squares up to each layer with one stage more, and where that starts."""
    earliest = stage.earliest_starts(bottleneck)
    longer: list[float] = [inf] * len(costs)
    chosen = [0] * len(costs)
    halves = [(1, len(costs) - 1, 0, len(costs) - 2)]  # ends from, to; starts from, to
    while halves:
        low, high, first, last = halves.pop()
        end = (low + high) // 2
        for start in range(max(first, earliest[end]), min(last, end - 1) + 1):
            if costs[start] < inf:
                cost = costs[start] + stage.time(start, end) ** 2
                if cost <= longer[end]:
                    longer[end], chosen[end] = cost, start
        known = longer[end] < inf
        if low < end:
            halves.append((low, end - 1, first, chosen[end] if known else last))
        if end < high:
            halves.append((end + 1, high, chosen[end] if known else first, last))
    return longer, chosen
