"""Which of those that are ready decode together."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_worker.leader.lanes import lane_of, together
from stageline_worker.leader.room import Room
from stageline_worker.leader.sequences import Run
from support.ringsim import Ring, linear, prompt


def run(lane):
    return Run(request=None, slot=lane, lane=lane)


def lanes(runs):
    return [each.lane for each in runs]


def test_the_next_group_is_that_of_most_who_are_ready():
    assert lane_of([run(0), run(1), run(1)], set(), 2) == 1
    assert lane_of([run(1), run(0)], set(), 2) == 1, "of two, that of the longest ready"
    assert lane_of([], {0, 2}, 4) == 1, "when nobody is, one that is not in the ring"


@pytest.mark.parametrize(
    ("busy", "sizes", "share", "expected"),
    [
        ({1}, {0: 3, 1: 2}, 3, [0, 0, 0]),  # the stray waits for its own
        ({1}, {0: 3, 1: 9}, 4, [0, 1, 0, 0]),  # which is full
        (set(), {0: 3, 1: 1}, 3, [0, 1, 0]),  # or not in the ring
    ],
)
def test_a_stray_waits_for_its_own_group_if_that_is_there_and_has_place(
    busy, sizes, share, expected
):
    ready = [run(0), run(1), run(0), run(0)]
    assert lanes(together(ready, 0, share, busy, lambda: Counter(sizes))) == expected


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=20), st.sets(st.integers(0, 3)),
    st.integers(1, 9), st.lists(st.integers(0, 9), min_size=4, max_size=4),
)  # fmt: skip
def test_somebody_always_decodes_and_no_more_than_the_share(ready, busy, share, sizes):
    runs = [run(lane) for lane in ready]
    lane = lane_of(runs, busy, 4)
    made = together(runs, lane, share, busy, lambda: Counter(dict(enumerate(sizes))))
    assert 1 <= len(made) <= share
    assert made == [each for each in runs if each in made], "out of the order of their coming"


@given(st.integers(1, 40), st.integers(1, 8), st.randoms(use_true_random=False))
def test_a_lane_is_a_row_of_neighbours_and_every_slot_is_given_once(slots, count, chance):
    room = Room(slots, 10**6, count)
    given_slots = []
    while room.has(1):
        room.take(1)
        given_slots.append(room.slot(chance.randrange(count)))
    assert sorted(given_slots) == list(range(slots))
    rows = [room.lane(slot) for slot in range(slots)]
    assert rows == sorted(rows)
    assert all(0 <= lane < count for lane in rows)


def gaps(step):
    """Places where the slots of a step's decoding rows are no neighbours."""
    slots = [segment.slot for segment in step.segments if segment.count == 1]
    return sum(after != before + 1 for before, after in pairwise(slots))


def test_groups_that_entered_apart_lie_side_by_side():
    ring = Ring([linear(0.004, 0.0003)] * 2)
    for key in range(32):
        ring.at(0.0, prompt(key, 32, 60))
    ring.run()
    steady = [step for step in ring.steps if len(step.tokens) == 16 == len(step.keys)]
    assert len(steady) > 60
    assert sum(map(gaps, steady)) <= 0.2 * len(steady), "groups are scattered over the slots"


def test_groups_stay_nearly_side_by_side_while_requests_come_and_go():
    chance = random.Random(1)
    ring = Ring([linear(0.004, 0.0003)] * 2)
    for key in range(300):
        ring.at(0.0, prompt(key, chance.randint(5, 200), chance.randint(10, 120)))
    ring.run()
    steady = ring.steps[len(ring.steps) // 5 : -len(ring.steps) // 5]
    assert sum(map(gaps, steady)) <= 4 * len(steady), "groups are scattered over the slots"
