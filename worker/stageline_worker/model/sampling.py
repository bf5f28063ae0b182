"""Draw tokens so that a replay draws them again.

The random number of a draw is a hash of the request's seed and the token's position, so it does
not depend on what else was computed, in which batch, or by which process.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from stageline_worker.microbatch import Sampling

_LOWEST = torch.finfo(torch.float64).min


def draw(logits: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """One token for each row of `logits` [rows, vocabulary]: int64 [rows].

    NaN counts as impossible; a row where nothing is possible still gives some token.
    """
    scores = logits.double().nan_to_num(nan=_LOWEST, neginf=_LOWEST)
    tokens = scores.argmax(dim=-1)
    for row, sampling in enumerate(samplings):
        if sampling.temperature > 0:
            tokens[row] = _sample(scores[row], sampling)
    return tokens


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that belongs to `position` of the request with `seed`."""
    counter = struct.pack("<QQ", seed % (1 << 64), position % (1 << 64))
    digest = hashlib.blake2b(counter, digest_size=8, person=b"stageline-token").digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)


def _sample(scores: Tensor, sampling: Sampling) -> Tensor:
    # Largest first and ties in the order of tokens: the same places on every run.
    ordered, tokens = scores.sort(descending=True, stable=True)
    weights = torch.softmax((ordered - ordered[0]) / sampling.temperature, dim=-1)
    if sampling.top_k > 0:
        weights = weights[: sampling.top_k]
    cumulative = weights.cumsum(dim=-1)
    kept = _kept_by_top_p(cumulative, sampling.top_p)
    point = uniform(sampling.seed, sampling.position) * cumulative[kept - 1]
    index = torch.searchsorted(cumulative[:kept], point, right=True)
    return tokens[index.clamp(max=kept - 1)]


def _kept_by_top_p(cumulative: Tensor, top_p: float) -> int:
    """How many of the most likely tokens to keep: the fewest that reach `top_p`, at least one."""
    if top_p >= 1:
        return cumulative.numel()
    reached = int((cumulative < top_p * cumulative[-1]).sum())
    return min(reached + 1, cumulative.numel())
