"""Tokens and logprobs out of a result; what is not what was due is refused."""

import pytest
import torch

from stageline_wire import FrameError
from stageline_worker.leader.draws import read_logprobs, read_tokens

VALUES = torch.tensor([[-0.5, -0.25, -3.0], [-1.0, -1.0, 0.0]])
IDS = torch.tensor([[7, 5, 9], [4, 4, -1]])


def test_each_draw_has_its_token_and_the_likeliest_it_asked_for():
    assert read_tokens({"tokens": torch.tensor([7, 4])}, 2) == [7, 4]
    told = read_logprobs({"logprobs": VALUES, "logprob_ids": IDS}, 2)
    assert told == [[-0.5, [[5, -0.25], [9, -3.0]]], [-1.0, [[4, -1.0]]]]
    assert read_logprobs({"tokens": torch.tensor([7, 4])}, 2) == []


@pytest.mark.parametrize("tokens", [{}, {"tokens": torch.tensor([1, 2, 3])}])
def test_too_few_or_too_many_tokens_are_refused(tokens):
    with pytest.raises(FrameError, match=r"the last stage answered .* where 2 were due"):
        read_tokens(tokens, 2)


@pytest.mark.parametrize(
    ("values", "ids"), [(VALUES, IDS[:1]), (VALUES[:1], IDS[:1]), (VALUES[0], IDS[0])]
)
def test_logprobs_of_other_draws_are_refused(values, ids):
    with pytest.raises(FrameError, match=r"told logprobs \[.*\] of 2 draws"):
        read_logprobs({"logprobs": values, "logprob_ids": ids}, 2)
