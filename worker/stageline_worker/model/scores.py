"""How a layer weighs values by the scores of their keys."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stageline_worker.model.step import Step


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
    groups = query.shape[0] // keys.shape[0]
    if groups > 1:
        keys, values = (part.repeat_interleave(groups, 0) for part in (keys, values))
    alone = scoring.plain and seen == queries <= window
    mask = None if alone or queries == 1 else step.chunk_mask(queries, seen, window)
    made = weigh(query[None], keys[None], values[None], mask, scoring, causal=alone)
    return made[0].transpose(0, 1)


def weigh(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scoring: Scoring,
    causal: bool = False,
) -> Tensor:
    """[rows, heads, queries, size]; `mask` is added to the scores [rows, heads, queries, seen]."""
    if scoring.plain:
        return F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=causal, scale=scoring.scale
        )
    scores = query @ keys.transpose(2, 3) * scoring.scale
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    if mask is not None:
        scores = scores + mask
    if scoring.sinks is None:
        return scores.softmax(-1, dtype=torch.float32).to(values.dtype) @ values
    sinks = scoring.sinks.view(1, keys.shape[1], -1, 1).expand(*scores.shape[:-1], 1)
    weights = torch.cat((scores, sinks), dim=-1).softmax(-1, dtype=torch.float32)
    return weights[..., :-1].to(values.dtype) @ values
