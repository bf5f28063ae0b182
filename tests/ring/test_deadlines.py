"""Deadlines grow with what is measured and with what is in the ring; the oldest is named."""

from stageline_worker.ring.deadlines import Deadlines


def test_nothing_is_overdue_before_the_floor():
    deadlines = Deadlines(floor=1.0, factor=2.0)
    deadlines.enter(1, 10, now=0.0)
    assert deadlines.overdue(1.0) is None
    assert deadlines.overdue(1.1) == (1, 1.1)


def test_a_long_prompt_may_take_as_long_as_its_tokens_were_measured_to():
    deadlines = Deadlines(floor=1.0, factor=2.0)
    deadlines.enter(1, 10, now=0.0)
    deadlines.leave(1, now=0.5)  # 0.05 s a token
    deadlines.enter(2, 100, now=10.0)
    assert deadlines.overdue(20.9) is None, "1 + 2 * 100 * 0.05 = 11 s"
    assert deadlines.overdue(21.1)[0] == 2


def test_what_is_ahead_in_the_ring_counts():
    deadlines = Deadlines(floor=1.0, factor=2.0)
    deadlines.enter(1, 10, now=0.0)
    deadlines.leave(1, now=0.5)
    deadlines.enter(2, 100, now=10.0)
    deadlines.enter(3, 1, now=10.0)
    deadlines.leave(2, now=15.0)
    assert deadlines.overdue(21.0) is None, "it stood behind 100 tokens"
    assert deadlines.overdue(22.0)[0] == 3


def test_the_oldest_is_named_and_what_came_back_is_forgotten():
    deadlines = Deadlines(floor=1.0, factor=0.0)
    for sequence in (1, 2, 3):
        deadlines.enter(sequence, 1, now=float(sequence))
    deadlines.leave(1, now=3.0)
    assert deadlines.overdue(9.0)[0] == 2
    deadlines.clear()
    assert deadlines.overdue(99.0) is None


def test_one_slow_trip_is_forgotten_with_time():
    deadlines = Deadlines(floor=0.0, factor=1.0)
    deadlines.enter(0, 1, now=0.0)
    deadlines.leave(0, now=100.0)
    for sequence in range(1, 400):
        deadlines.enter(sequence, 1, now=0.0)
        deadlines.leave(sequence, now=0.01)
    deadlines.enter(1000, 1, now=0.0)
    assert deadlines.overdue(1.0) is not None
