"""A batch of draws against a plain reading of the definitions, one row at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_worker.microbatch import Sampling, Segment
from stageline_worker.model import StageError
from stageline_worker.model.sampler import Sampler
from stageline_worker.model.sampling import uniform

VOCABULARY = 12
SLOTS = 8
CPU = torch.device("cpu")

logits = st.lists(st.integers(-60, 60), min_size=VOCABULARY, max_size=VOCABULARY)
ids = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9)


@st.composite
def samplings(draw, penalties=True):
    return Sampling(
        seed=draw(st.integers(0, 1 << 40)),
        position=draw(st.integers(0, 1 << 20)),
        temperature=draw(st.sampled_from([0.0, 0.3, 1.0, 2.5])),
        top_k=draw(st.sampled_from([0, 1, 3, 11, 12, 40])),
        top_p=draw(st.sampled_from([0.0, 0.4, 0.75, 0.999, 1.0])),
        min_p=draw(st.sampled_from([0.0, 0.05, 0.6, 1.0])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3, 0.7])) if penalties else 1.0,
        presence_penalty=draw(st.sampled_from([0.0, 0.8, -1.5])) if penalties else 0.0,
        frequency_penalty=draw(st.sampled_from([0.0, 0.25])) if penalties else 0.0,
        banned=draw(st.sampled_from([(), (2,), (0, 11)])),
        logprobs=draw(st.sampled_from([None, 0, 2, 50])),
    )


rows = st.tuples(logits, samplings(), ids, st.integers(0, 9))


def plain(scores, sampling, tokens, prompt):
    """The token of one row: `tokens` are those of the sequence, `prompt` how many are prompt."""
    scores = [float(score) for score in scores]
    output = tokens[prompt:]
    for token in set(tokens):
        divided = scores[token] > 0
        penalty = sampling.repetition_penalty
        scores[token] = scores[token] / penalty if divided else scores[token] * penalty
    for token in set(output):
        scores[token] -= sampling.frequency_penalty * output.count(token)
        scores[token] -= sampling.presence_penalty
    for token in sampling.banned:
        scores[token] = -math.inf
    if sampling.temperature == 0:
        return [scores.index(max(scores))]
    likeliest = max(scores)
    weights = [math.exp((score - likeliest) / sampling.temperature) for score in scores]
    weights = [weight if weight >= sampling.min_p else 0.0 for weight in weights]
    order = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    kept = order[: sampling.top_k or len(order)]
    total, reached, least = sum(weights[token] for token in kept), 0.0, set()
    for token in kept:
        least.add(token)
        reached += weights[token]
        if sampling.top_p < 1 and reached >= sampling.top_p * total:
            break
    left = [weight if token in least else 0.0 for token, weight in enumerate(weights)]
    point = uniform(sampling.seed, sampling.position) * sum(left)
    reached, made = 0.0, []
    for token, weight in enumerate(left):
        # A point on a border may fall to either side: sums differ in their last digits.
        if reached - 1e-9 <= point <= reached + weight + 1e-9 and weight > 0:
            made.append(token)
        reached += weight
    return made


def _result(sampler, batch, slots):
    segments, told = [], []
    for (_, sampling, tokens, prompt), slot in zip(batch, slots, strict=True):
        segments.append(Segment(slot, 0, len(tokens), sampling, min(prompt, len(tokens))))
        told += tokens
    matrix = torch.tensor([row[0] for row in batch], dtype=torch.float32) / 8
    return sampler.draw(matrix, segments, torch.tensor(told))


@given(st.lists(rows, min_size=1, max_size=5), st.permutations(range(SLOTS)))
@settings(max_examples=200)
def test_every_row_is_what_the_definitions_say(batch, slots):
    made = _result(Sampler(SLOTS, VOCABULARY, CPU), batch, slots[: len(batch)])["tokens"].tolist()
    for token, (scores, sampling, tokens, prompt) in zip(made, batch, strict=True):
        expected = plain([score / 8 for score in scores], sampling, tokens, prompt)
        assert token in expected, f"{sampling} of {scores} drew {token}, expected {expected}"


@given(st.lists(rows, min_size=2, max_size=5), st.permutations(range(SLOTS)), st.randoms())
@settings(max_examples=100)
def test_company_order_and_slots_change_no_token(batch, slots, random):
    together = _result(Sampler(SLOTS, VOCABULARY, CPU), batch, slots[: len(batch)])
    order = list(range(len(batch)))
    random.shuffle(order)
    others = _result(Sampler(SLOTS, VOCABULARY, CPU), [batch[row] for row in order], order)
    assert together["tokens"][order].tolist() == others["tokens"].tolist()
    alone = [_result(Sampler(SLOTS, VOCABULARY, CPU), [row], [3])["tokens"] for row in batch]
    assert torch.cat(alone).tolist() == together["tokens"].tolist()


@given(st.integers(0, 1 << 30), st.sampled_from([0.3, 0.9, 0.99]), st.sampled_from([0, 700, 2500]))
@settings(max_examples=25)
def test_a_large_vocabulary_is_cut_where_a_full_sort_cuts_it(seed, top_p, top_k):
    random = torch.Generator().manual_seed(seed)
    # Flat: top_p reaches beyond the tokens that are looked at first. Rounded: many are equal.
    scores = (torch.randn(2, 3000, generator=random) * 4).round() / 8
    options = {"temperature": 1.0, "top_p": top_p, "top_k": top_k}
    segments = [Segment(slot, 0, 1, Sampling(seed, slot, **options)) for slot in range(2)]
    made = Sampler(2, 3000, CPU).draw(scores, segments, None)["tokens"].tolist()
    for row, segment in enumerate(segments):
        expected = plain(scores[row].tolist(), segment.sampling, [], 0)
        assert made[row] in expected, f"row {row} drew {made[row]}, expected {expected}"


def _told(sampler, segments, tokens):
    scores = torch.zeros(sum(s.sampling is not None for s in segments), VOCABULARY)
    return sampler.draw(scores, segments, torch.tensor(tokens))["tokens"].tolist()


def test_penalties_follow_a_sequence_through_chunks_and_decode_steps():
    sampler, strong = Sampler(SLOTS, VOCABULARY, CPU), Sampling(0, 1, presence_penalty=1.0)
    assert _told(sampler, [Segment(2, 0, 2, None, 3), Segment(5, 0, 1, None, 1)], [0, 1, 4]) == []
    # Tokens 0 and 1 are prompt, the first 0 after it is output.
    assert _told(sampler, [Segment(2, 2, 1, strong, 3)], [1]) == [0]
    assert _told(sampler, [Segment(2, 3, 1, strong, 3)], [0]) == [1]
    assert _told(sampler, [Segment(2, 4, 1, strong, 3)], [1]) == [2]
    again = [Segment(2, 0, 2, None, 3), Segment(5, 1, 1, strong, 1)]
    assert _told(sampler, again, [5, 5, 0]) == [1], "slot 5 counts the tokens of slot 2"
    assert _told(sampler, [Segment(2, 2, 1, strong, 3)], [5]) == [0], "the old sequence counts"


def test_a_sequence_that_is_prefilled_again_goes_on_as_before():
    penalties = {"repetition_penalty": 1.7, "frequency_penalty": 0.3, "presence_penalty": 0.2}
    scores = torch.linspace(1, 3, VOCABULARY).roll(5)[None]

    def drawn(sampler, segment, told):
        return int(sampler.draw(scores, [segment], torch.tensor(told))["tokens"])

    tokens, sampler = [4, 9, 4], Sampler(SLOTS, VOCABULARY, CPU)
    for start in (0, 3, 4, 5, 6, 7):
        sampling = Sampling(9, len(tokens), temperature=0.8, **penalties)
        told = tokens[start:]
        tokens.append(drawn(sampler, Segment(1, start, len(told), sampling, 3), told))
        # Somewhere else, prompt and output in one piece.
        whole = Segment(0, 0, len(tokens) - 1, sampling, 3)
        there = drawn(Sampler(2, VOCABULARY, CPU), whole, tokens[:-1])
        assert there == tokens[-1], f"after {tokens[:-1]}"


def test_logprobs_are_the_models_own():
    scores = torch.tensor([[0.0, 2.0, 1.0, -1.0], [0.0, 2.0, 1.0, -1.0], [5.0, 0.0, 0.0, 0.0]])
    expected = torch.log_softmax(scores, dim=-1)
    options = {"temperature": 0.0, "presence_penalty": 9.0, "banned": (1,)}
    segments = [
        Segment(0, 0, 1, Sampling(0, 1, logprobs=2, **options), 1),
        Segment(1, 0, 1, Sampling(0, 1), 1),
        Segment(2, 0, 1, Sampling(0, 1, logprobs=0), 1),
    ]
    made = Sampler(3, 4, CPU).draw(scores, segments, torch.tensor([0, 0, 0]))
    assert made["tokens"].tolist() == [2, 1, 0]
    assert made["logprob_ids"].tolist() == [[2, 1, 2], [-1, -1, -1], [0, -1, -1]]
    assert made["logprobs"].dtype == torch.float32
    assert made["logprobs"][0].tolist() == expected[0, [2, 1, 2]].tolist()
    assert made["logprobs"][2, 0] == expected[2, 0]


def test_nobody_asks_for_logprobs_and_none_are_made():
    made = Sampler(1, 4, CPU).draw(torch.zeros(1, 4), [Segment(0, 0, 1, Sampling(0, 1))], None)
    assert set(made) == {"tokens"}


@pytest.mark.parametrize(
    ("segment", "told", "sentence"),
    [
        (Segment(0, 0, 1, Sampling(0, 1), 1), None, "its tokens did not come along"),
        (Segment(0, 0, 1, Sampling(0, 1, presence_penalty=1)), [1], "where its prompt ends"),
    ],
)
def test_penalties_without_what_they_need_are_refused(segment, told, sentence):
    told = None if told is None else torch.tensor(told)
    with pytest.raises(StageError, match=sentence):
        Sampler(1, 4, CPU).draw(torch.zeros(1, 4), [segment], told)


def test_counts_take_no_memory_before_they_are_needed():
    sampler = Sampler(1 << 20, 1 << 20, CPU)  # a tebibyte for the prompts alone
    assert _told(sampler, [Segment(0, 0, 1, Sampling(0, 1))], [0]) == [0]
