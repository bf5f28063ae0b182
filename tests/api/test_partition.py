"""Dealing layers to stages: against every partition there is, and in time."""

import itertools
import time
from math import lcm

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_api.partition import Place, deal, fewest_stages


def times(work, places, partition):
    """Time of each stage, as a whole number, on the scale that `lcm` of the speeds gives."""
    fastest = lcm(*(place.speed for place in places))
    ends = itertools.accumulate(partition)
    return [
        (sum(work[end - size : end]) + place.work) * (fastest // place.speed)
        for place, size, end in zip(places, partition, ends, strict=True)
    ]


def fits(memory, places, partition):
    ends = itertools.accumulate(partition)
    return all(
        place.capacity is None or sum(memory[end - size : end]) + place.memory <= place.capacity
        for place, size, end in zip(places, partition, ends, strict=True)
    )


def every_partition(layers, stages):
    for cuts in itertools.combinations(range(1, layers), stages - 1):
        bounds = (0, *cuts, layers)
        yield tuple(after - before for before, after in itertools.pairwise(bounds))


def best_of_all(work, memory, places):
    """Least bottleneck, then least sum of squares, then the last stages as small as can be."""

    def rank(partition):
        each = times(work, places, partition)
        return max(each), sum(time**2 for time in each), partition[::-1]

    fitting = [p for p in every_partition(len(work), len(places)) if fits(memory, places, p)]
    return min(fitting, key=rank, default=None)


SMALL = st.integers(0, 12)
PLACES = st.builds(
    Place,
    work=SMALL,
    memory=SMALL,
    speed=st.sampled_from([50, 75, 100, 100, 200]),
    capacity=st.none() | st.integers(5, 60),
)
LAYERS = st.lists(st.tuples(st.integers(0, 12), SMALL), min_size=1, max_size=10)


@settings(max_examples=800)
@given(LAYERS, st.lists(PLACES, min_size=1, max_size=5))
def test_the_partition_is_the_best_of_all_partitions(layers, places):
    work, memory = [layer[0] for layer in layers], [layer[1] for layer in layers]
    assert deal(work, memory, places) == best_of_all(work, memory, places)


@settings(max_examples=300)
@given(LAYERS, st.lists(PLACES, min_size=10, max_size=10), st.integers(1, 4))
def test_the_fewest_stages_are_the_first_number_that_any_partition_fits(layers, places, least):
    memory = [layer[1] for layer in layers]
    work = [0] * len(memory)
    last = Place(memory=9, capacity=40)

    def place(stage, stages):
        return last if stage == stages - 1 else places[stage]

    fitting = (
        stages
        for stages in range(least, len(layers) + 1)
        if best_of_all(work, memory, [place(stage, stages) for stage in range(stages)])
    )
    assert fewest_stages(memory, place, least, most=10) == next(fitting, None)


@pytest.mark.parametrize(
    ("layers", "places", "partition"),
    [
        (6, [Place(), Place(), Place()], (2, 2, 2)),
        (10, [Place()] * 4, (3, 3, 2, 2)),
        (6, [Place()], (6,)),
        (3, [Place()] * 3, (1, 1, 1)),
        (2, [Place()] * 3, None),
        (12, [Place(), Place(work=27)], (7, 5)),
        (12, [Place()] * 2 + [Place(work=200)], (6, 5, 1)),
        (12, [Place(speed=200), Place()], (8, 4)),
        (12, [Place(capacity=3), Place()], (3, 9)),
        (12, [Place(capacity=3), Place(capacity=8)], None),
        (12, [Place(capacity=3, memory=1), Place()], (2, 10)),
    ],
)
def test_partitions_are_what_one_would_expect(layers, places, partition):
    assert deal([10] * layers, [1] * layers, places) == partition


@settings(max_examples=60)
@given(
    st.integers(1, 8).flatmap(
        lambda stages: st.tuples(
            st.just(stages),
            st.lists(st.integers(1, 10), min_size=1, max_size=3),
            st.integers(20, 60),
            st.integers(0, 90),
        )
    )
)
def test_the_slowest_stage_is_within_a_layer_of_the_mean(case):
    stages, pattern, rounds, edge = case
    work = (pattern * (rounds * stages))[: rounds * stages]
    places = [Place() for _ in range(stages - 1)] + [Place(work=edge)]
    each = times(work, places, deal(work, [0] * len(work), places))
    mean = sum(each) / stages
    assert max(each) <= max(mean + max(work), edge + max(work)), each


def heads():
    """A head that weighs as much as so many layers."""
    return [0, 10, 100, 1000]


@pytest.mark.parametrize("head", heads())
@pytest.mark.parametrize("kind", ["alike", "different", "unequal devices", "little memory"])
def test_a_thousand_layers_on_64_stages_take_less_than_a_second(head, kind):
    alike = kind == "alike"
    work = [10**9 if alike else 10**9 + (layer * 7919) % 10**9 for layer in range(1000)]
    speeds = [50 + 25 * (stage % 3) if kind == "unequal devices" else 100 for stage in range(64)]
    capacity = 17 if kind == "little memory" else None
    places = [Place(speed=speed, capacity=capacity) for speed in speeds]
    places[-1] = Place(work=head * 10**9, capacity=capacity)
    took = []
    # Up to three tries: what else a machine does at a time slows one by more than planning varies.
    while not took or (min(took) >= 1 and len(took) < 3):
        started = time.process_time()
        partition = deal(work, [1] * 1000, places)
        took.append(time.process_time() - started)
        assert sum(partition) == 1000
    assert min(took) < 1, f"planning took {min(took):.2f} s of CPU"


def test_looking_for_the_fewest_stages_in_vain_takes_less_than_a_second():
    started = time.process_time()
    assert fewest_stages([10] * 1000, lambda *_: Place(capacity=9), 1, 1024) is None
    assert fewest_stages([10] * 1000, lambda *_: Place(capacity=10), 1, 1024) == 1000
    took = time.process_time() - started
    assert took < 1, f"it took {took:.2f} s of CPU"
