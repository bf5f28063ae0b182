"""Which of those that are ready decode together. Pure.

A stage reads the caches of neighbouring slots in one call, so each group has a lane of them, and
who enters with a group gets a slot of its lane. Groups do not stay what they were: some of one end,
and a prompt's last tokens may enter with another group than its first. So who is ready with another
group than that of its lane waits for its own, unless that has no place or is not in the ring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Set

from stageline_worker.leader.sequences import Run


def lane_of(ready: Iterable[Run], busy: Collection[int], lanes: int) -> int:
    """The lane of the next group: that of most who are `ready`; when nobody is, one that is not
    `busy` in the ring."""
    counts = Counter(run.lane for run in ready)
    if counts:
        return max(counts, key=counts.__getitem__)
    return next((lane for lane in range(lanes) if lane not in busy), 0)


def together(
    ready: Collection[Run],
    lane: int,
    share: int,
    busy: Set[int],
    sizes: Callable[[], Mapping[int, int]],
) -> list[Run]:
    """The longest ready of those that may decode in this group, `share` at most.

    `sizes` tells how many decode by lane, in the ring or not; it is asked where somebody strayed.
    Never empty when somebody of `lane` is ready.
    """
    strays = {run.lane for run in ready} & busy - {lane}
    known = sizes() if strays else {}
    waiting = {other for other in strays if known[other] <= share}
    return [run for run in ready if run.lane not in waiting][:share]
