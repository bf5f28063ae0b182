"""Tokens are drawn by seed and position alone, from the distribution that was asked for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_worker.microbatch import Sampling
from stageline_worker.model.sampling import draw, uniform

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, 1.0]])
seeds = st.integers(min_value=-(1 << 70), max_value=1 << 70)


def _draws(count, **options):
    rows = LOGITS.expand(count, -1)
    return draw(rows, [Sampling(seed=5, position=n, **options) for n in range(count)])


@given(seed=seeds, position=st.integers(0, 1 << 40), others=st.integers(0, 5))
@settings(max_examples=60)
def test_a_draw_does_not_depend_on_its_batch_or_on_what_was_drawn_before(seed, position, others):
    wanted = Sampling(seed, position, temperature=0.9, top_k=4, top_p=0.95)
    alone = draw(LOGITS, [wanted])
    torch.rand(1)
    batch = torch.cat([LOGITS.flip(1)] * others + [LOGITS])
    company = [Sampling(n, n, temperature=2.0) for n in range(others)]
    assert draw(batch, [*company, wanted])[-1] == alone[0]


def test_seed_and_position_change_the_number():
    numbers = {uniform(seed, position) for seed in range(50) for position in range(50)}
    assert len(numbers) == 2500, "two draws share a random number"
    assert all(0 <= number < 1 for number in numbers)


def test_a_known_draw_stays_what_it_is():
    # A replay may run on a newer worker: changing this changes the tokens of running requests.
    assert uniform(0, 0) == 0.21897515726920158


def test_temperature_zero_is_the_most_likely_token():
    assert _draws(20, temperature=0.0).tolist() == [0] * 20


def test_frequencies_follow_the_softmax():
    count, temperature = 4000, 1.5
    drawn = torch.bincount(_draws(count, temperature=temperature), minlength=5) / count
    expected = torch.softmax(LOGITS[0] / temperature, dim=0)
    assert (drawn - expected).abs().max() < 4 * math.sqrt(0.25 / count), (
        f"drawn {drawn.tolist()}, expected {expected.tolist()}"
    )


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"top_k": 1}, {0}),
        ({"top_k": 2}, {0, 1}),  # 1 and 4 are equal: the lower token comes first
        ({"top_k": 3}, {0, 1, 4}),
        ({"top_k": 99}, {0, 1, 2, 3, 4}),
        ({"top_p": 0.0}, {0}),
        ({"top_p": 0.5}, {0}),  # the first has .52 of the probability
        ({"top_p": 0.6}, {0, 1}),
        ({"top_p": 0.95}, {0, 1, 2, 4}),
        ({"top_p": 1.0}, {0, 1, 2, 3, 4}),
        ({"top_k": 2, "top_p": 0.7}, {0}),  # of the two that top_k leaves, the first has .73
    ],
)
def test_top_k_and_top_p_keep_the_tokens_they_say(options, allowed):
    drawn = set(_draws(600, temperature=1.0, **options).tolist())
    assert drawn == allowed, f"{options} drew {drawn}"


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1.0, 1e300])
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([math.nan] * 4, {0, 1, 2, 3}),
        ([-math.inf] * 4, {0, 1, 2, 3}),
        ([math.nan, 1.0, -math.inf, math.nan], {1}),
        ([0.0, math.inf, 0.0, -math.inf], {1}),
        ([3e38, -3e38, 3e38, 0.0], {0, 2}),
    ],
)
def test_logits_that_are_no_numbers_give_a_token_all_the_same(row, expected, temperature):
    if temperature == 1e300:
        expected = {0, 1, 2, 3}
    logits = torch.tensor([row])
    for position in range(20):
        token = int(draw(logits, [Sampling(1, position, temperature=temperature, top_p=0.9)]))
        assert token in expected, f"{row} at temperature {temperature} gave {token}"


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=40),
    st.floats(0, 100), st.integers(0, 50), st.floats(0, 1), seeds,
)  # fmt: skip
@settings(max_examples=200)
def test_any_logits_give_a_token_of_the_vocabulary(row, temperature, top_k, top_p, seed):
    sampling = Sampling(seed, 3, temperature=temperature, top_k=top_k, top_p=top_p)
    assert 0 <= int(draw(torch.tensor([row]), [sampling])) < len(row)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_rows_and_every_dtype(dtype):
    assert draw(torch.empty(0, 5, dtype=dtype), []).shape == (0,)
    token = draw(LOGITS.to(dtype), [Sampling(1, 1, temperature=1.0)])
    assert token.dtype == torch.int64
    assert token.shape == (1,)
