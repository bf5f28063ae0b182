"""How a layer weighs values by the scores of their keys."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stageline_worker.model.step import Step

_MASK = 1 << 22  # scores of one head at a time: of a long sequence, a chunk goes in parts


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a layer scores: `softcap` bends scores (Gemma 2), `sinks` [heads] take a share of the
    weights and give nothing (gpt-oss)."""

    scale: float
    softcap: float | None
    sinks: Tensor | None

    @property
    def plain(self) -> bool:
        return self.softcap is None and self.sinks is None


def attend(
    step: Step, window: int, query: Tensor, keys: Tensor, values: Tensor, scoring: Scoring
) -> Tensor:
    """[tokens, heads, size] of one sequence's tokens in a row, `query` [heads, tokens, size]: each
    attends to the `window` tokens that end with itself, of `keys` and `values` [kv heads, seen,
    size], whose last are the queries' own."""
    queries, seen = query.shape[1], keys.shape[1]
    parts = []
    for begin in range(0, queries, most := max(1, _MASK // seen)):
        end = min(begin + most, queries)
        known = seen - queries + end
        parts.append(
            _attend(step, window, query[:, begin:end], keys[:, :known], values[:, :known], scoring)
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend(
    step: Step, window: int, query: Tensor, keys: Tensor, values: Tensor, scoring: Scoring
) -> Tensor:
    queries, seen = query.shape[1], keys.shape[1]
    # Each head of keys is a row with as many heads as share it, so that no key is copied.
    rows = torch.unflatten(query, 0, (keys.shape[0], -1))
    shared = (keys.shape[0], rows.shape[1], -1, -1)
    alone = scoring.plain and seen == queries <= window
    all_of_it = queries == 1 and seen <= window
    mask = None if alone or all_of_it else step.chunk_mask(queries, seen, window)
    sinks = None if scoring.sinks is None else scoring.sinks.view(*shared[:2], 1, 1)
    made = weigh(
        rows, keys[:, None].expand(shared), values[:, None].expand(shared), mask, scoring, sinks,
        causal=alone,
    )  # fmt: skip
    return made.flatten(0, 1).transpose(0, 1)


def weigh(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scoring: Scoring,
    sinks: Tensor | None,
    causal: bool = False,
) -> Tensor:
    """[rows, heads, queries, size]; `mask` is added to the scores [rows, heads, queries, seen],
    `sinks` are those of `scoring` in a shape that fits them."""
    if scoring.plain:
        return F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=causal, scale=scoring.scale
        )
    scores = query @ keys.transpose(2, 3) * scoring.scale
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    if mask is not None:
        scores = scores + mask
    if sinks is None:
        return scores.softmax(-1, dtype=torch.float32).to(values.dtype) @ values
    sinks = sinks.expand(*scores.shape[:-1], 1).to(scores.dtype)
    weights = torch.cat((scores, sinks), dim=-1).softmax(-1, dtype=torch.float32)
    return weights[..., :-1].to(values.dtype) @ values
