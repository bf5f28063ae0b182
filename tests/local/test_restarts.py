"""Back-off under simulated time: deaths go in as numbers, delays come out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_local.restarts import NextStart, Restart, RestartPolicy, after_exit

POLICY = RestartPolicy(first_delay=0.5, max_delay=4.0, stable_seconds=10.0)


def delays(policy, lives):
    failures, seen = 0, []
    for lived in lives:
        then = after_exit(policy, failures, lived, exit_code=1)
        failures = then.failures
        seen.append(then.delay)
    return seen


@pytest.mark.parametrize(
    ("lives", "expected"),
    [
        ([0], [0.0]),
        ([0, 0, 0, 0, 0, 0, 0], [0.0, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]),
        ([0, 0, 0, 10, 0], [0.0, 0.5, 1.0, 0.0, 0.5]),
        ([9.99, 9.99], [0.0, 0.5]),
        ([10, 10, 10], [0.0, 0.0, 0.0]),
    ],
    ids=["first-at-once", "doubles-to-the-limit", "stable-resets", "almost-stable", "all-stable"],
)
def test_delays_of_a_row_of_lives(lives, expected):
    assert delays(POLICY, lives) == expected


@pytest.mark.parametrize(
    ("when", "exit_code", "again"),
    [
        (Restart.ALWAYS, 0, True),
        (Restart.ALWAYS, 1, True),
        (Restart.ON_FAILURE, 0, False),
        (Restart.ON_FAILURE, 137, True),
        (Restart.NEVER, 0, False),
        (Restart.NEVER, 1, False),
    ],
)
def test_which_ends_are_followed_by_a_start(when, exit_code, again):
    then = after_exit(RestartPolicy(when=when), 0, 0.0, exit_code)
    assert (then.delay is not None) == again


def test_failures_are_counted_even_when_no_start_follows():
    policy = RestartPolicy(when=Restart.NEVER)
    assert after_exit(policy, 2, 0.0, 1) == NextStart(failures=3, delay=None)


@given(st.integers(0, 10_000), st.floats(0, 1e6))
def test_delay_stays_between_zero_and_the_limit(failures, lived):
    delay = after_exit(POLICY, failures, lived, 1).delay
    assert 0 <= delay <= POLICY.max_delay


@given(st.floats(0.0, 0.2), st.integers(60, 600))
def test_what_dies_at_once_is_started_rarely(lived, horizon):
    now, failures, starts = 0.0, 0, 0
    while now < horizon:
        starts += 1
        then = after_exit(RestartPolicy(), failures, lived, 1)
        failures, now = then.failures, now + lived + then.delay
    assert starts <= 8 + horizon / RestartPolicy().max_delay
