"""What microbatches take is learnt from noisy figures, and bounds what prompts may take."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_worker.leader.drain_rate import DrainRate
from stageline_worker.leader.pace import LEAST, Extent, Pace

DECODING = Extent(16, 16 * 300)


def taught(a, b, c, noise=0.1, count=200, wild=0.0):
    chance = random.Random(1)
    pace = Pace(2.0)
    for _ in range(count):
        tokens = 16 + chance.choice([0, 0, chance.randint(1, 200)])
        extent = Extent(tokens, tokens * chance.randint(50, 500))
        seconds = a + b * extent.tokens + c * extent.reads
        factor = 50.0 if chance.random() < wild else chance.uniform(1 - noise, 1 + noise)
        pace.learn(extent, seconds * factor)
    return pace


@pytest.mark.parametrize(
    ("a", "b", "c"), [(0.01, 0.001, 1e-7), (0.02, 1e-5, 0.0), (0.0, 1e-3, 1e-6)]
)
def test_it_finds_what_microbatches_take(a, b, c):
    pace = taught(a, b, c)
    for extent in (DECODING, Extent(100, 30_000), Extent(16 + 150, 80_000)):
        truth = a + b * extent.tokens + c * extent.reads
        assert pace.seconds(extent) == pytest.approx(truth, rel=0.1)


def test_now_and_then_a_microbatch_that_took_far_too_long_teaches_little():
    pace = taught(0.01, 0.001, 0.0, wild=0.02)
    assert pace.seconds(DECODING) == pytest.approx(0.026, rel=0.3)


def test_it_follows_when_everything_gets_slower():
    pace = taught(0.01, 0.001, 0.0)
    for n in range(200):
        extent = Extent(16 + n % 3 * 40, 5000)
        pace.learn(extent, 10 * (0.01 + 0.001 * extent.tokens))
    assert pace.seconds(DECODING) == pytest.approx(0.26, rel=0.15)


def test_a_microbatch_with_prompt_tokens_takes_twice_one_without():
    pace = taught(0.01, 0.001, 1e-7, noise=0.0)
    tokens = pace.beside(DECODING, DECODING, 0, 512)
    assert pace.seconds(Extent(16 + tokens, DECODING.reads)) == pytest.approx(
        2 * pace.seconds(DECODING), rel=0.1
    )
    deep = pace.beside(DECODING, DECODING, 8000, 512)
    assert LEAST <= deep < tokens, "far into a prompt a token costs more"
    assert pace.beside(DECODING, Extent(0, 0), 0, 512) > tokens, "alone it may take as long"


def test_while_nothing_is_known_a_little_is_risked():
    assert Pace(2.0).beside(DECODING, DECODING, 0, 512) == 64
    assert Pace(2.0).beside(DECODING, DECODING, 0, 8) == 8


def test_when_nothing_decodes_the_backlog_is_shared_but_not_into_crumbs():
    assert Pace(2.0).apart(1000, 4, 512) == 250
    assert Pace(2.0).apart(100, 4, 512) == 64
    dear = taught(0.02, 1e-4, 0.0)
    assert 150 < dear.apart(400, 4, 512) < 250, "200 tokens cost as much as the microbatch itself"


@given(
    figures=st.lists(
        st.tuples(st.integers(1, 600), st.integers(0, 10**6), st.floats(0, 100)), max_size=40
    ),
    start=st.integers(0, 10**5),
    limit=st.integers(1, 512),
)
def test_whatever_it_is_told_it_allows_some_and_not_more_than_the_limit(figures, start, limit):
    pace = Pace(2.0)
    for tokens, reads, seconds in figures:
        pace.learn(Extent(tokens, reads), seconds)
        assert pace.seconds(Extent(5, 5)) >= 0
    assert min(LEAST, limit) <= pace.beside(DECODING, DECODING, start, limit) <= limit
    assert 1 <= pace.apart(1000, 3, limit) <= limit


def test_who_finds_no_place_is_told_when_to_come_again():
    rate = DrainRate()
    assert rate.seconds(5, 0.0) == 60.0, "nothing has ended yet"
    for n in range(50):
        rate.ended(n * 0.5)
    assert rate.seconds(8, 24.5) == pytest.approx(4.0)
    assert rate.seconds(1, 24.5) == 1.0
    assert rate.seconds(8, 44.5) == 60.0, "it has stalled since"
