"""Draw tokens so that a replay draws them again.

The random number of a draw is a hash of the request's seed and the token's position, so it does
not depend on what else was computed, in which batch, or by which process. It falls on the
tokens' weights in the order of their ids: weights that differ in their last digits, because
another batch added up in another order, move the borders by as little, where an order by weight
would exchange tokens.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stageline_worker.microbatch import Sampling

_CANDIDATES = 1024  # likeliest tokens that are looked at before all are sorted


def draw(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """One token for each row of `logits` [rows, vocabulary]: int64 [rows].

    NaN counts as impossible; a row where nothing is possible still gives some token.
    """
    scores = logits.nan_to_num(nan=torch.finfo(logits.dtype).min)
    tokens = scores.argmax(dim=-1)
    rows = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if rows:
        tokens[rows] = _sample(scores[rows], [samplings[row] for row in rows])
    return tokens


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that belongs to `position` of the request with `seed`."""
    counter = struct.pack("<QQ", seed % (1 << 64), position % (1 << 64))
    digest = hashlib.blake2b(counter, digest_size=8, person=b"stageline-token").digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)


def _sample(scores: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    weights = _weights(scores, samplings)
    _cut(weights, samplings)
    cumulative = weights.cumsum(dim=-1)
    numbers = [uniform(sampling.seed, sampling.position) for sampling in samplings]
    points = _column(numbers, weights) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, points, right=True).squeeze(1)


def _weights(scores: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Of each token against the likeliest one: float64 [rows, vocabulary], 0 where min_p says."""
    # Not float32: over a large vocabulary its sums would miss what is unlikely.
    exact = scores.double()
    exact -= exact.amax(dim=-1, keepdim=True)
    exact /= _column([sampling.temperature for sampling in samplings], exact)
    weights = exact.exp_()
    if any(sampling.min_p > 0 for sampling in samplings):
        least = _column([min(sampling.min_p, 1.0) for sampling in samplings], weights)
        weights.masked_fill_(weights < least, 0)
    return weights


def _cut(weights: Tensor, samplings: Sequence[Sampling]) -> None:
    """Make 0 what top_k and top_p leave out; of equal tokens the higher ids go first."""
    vocabulary = weights.shape[1]
    rows = [
        row
        for row, sampling in enumerate(samplings)
        if 0 < sampling.top_k < vocabulary or sampling.top_p < 1
    ]
    if not rows:
        return
    limited = [samplings[row] for row in rows]
    chosen = weights[rows]
    count, least = _border(chosen, limited)
    above, equal = chosen > least, chosen == least
    places = count - above.sum(dim=-1, keepdim=True)
    kept = above | (equal & (equal.cumsum(dim=-1) <= places))
    weights[rows] = chosen * kept


def _border(weights: Tensor, samplings: Sequence[Sampling]) -> tuple[Tensor, Tensor]:
    """How many of the likeliest tokens to keep, and the weight of the last: both [rows, 1]."""
    vocabulary = weights.shape[1]
    top_p = _column([sampling.top_p for sampling in samplings], weights)
    limits = [min(sampling.top_k or vocabulary, vocabulary) for sampling in samplings]
    limit = _column(limits, weights, torch.int64)
    whole = weights.sum(dim=-1, keepdim=True)
    looked = min(max(sampling.top_k or _CANDIDATES for sampling in samplings), vocabulary)
    ordered = weights.topk(looked).values
    reached = (limit <= looked) | (ordered.sum(dim=-1, keepdim=True) >= top_p * whole)
    if not reached.all():
        ordered = weights.sort(dim=-1, descending=True).values
    cumulative = ordered.cumsum(dim=-1)
    of_limit = cumulative.gather(1, limit.clamp(max=ordered.shape[1]) - 1)
    total = torch.where(limit < vocabulary, of_limit, whole)
    below = (cumulative < top_p * total).sum(dim=-1, keepdim=True)
    count = torch.where(top_p < 1, torch.minimum(below + 1, limit), limit)
    return count, ordered.gather(1, count.clamp(max=ordered.shape[1]) - 1)


def _column(values: Sequence[Any], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.tensor(values, dtype=dtype or like.dtype, device=like.device).unsqueeze(1)
