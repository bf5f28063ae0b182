"""Attention whose cache is compressed: DeepSeek's multi-head latent attention (arXiv 2405.04434).

What is kept of a token is one latent for all heads and one rotated key. The model asks its cache
for all of a sequence's, makes keys and values from them, and attends. So the cache gives it those
of all sequences of the step, one sequence after another, and attention takes them apart again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stageline_worker.model.kv import LayerKV
from stageline_worker.model.place import Place
from stageline_worker.model.scores import Scoring, attend
from stageline_worker.model.step import Step


class LatentCache:
    """Stands for transformers' cache, as far as a model uses it when positions are given."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def update(self, latents: Tensor, rotated: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Keep what is new [1, 1, tokens, size]; all that is kept of the step's sequences."""
        layer = self._place.kv.layers[layer_idx]
        segments = self._place.computed.segments
        counts = [segment.count for segment in segments]
        parts: list[tuple[Tensor, Tensor]] = []
        new = zip(
            torch.split(latents[0], counts, 1), torch.split(rotated[0], counts, 1), strict=True
        )
        for segment, (key, value) in zip(segments, new, strict=True):
            end = segment.start + segment.count
            layer.keys[segment.slot, :, segment.start : end] = key
            layer.values[segment.slot, :, segment.start : end] = value
            parts.append((layer.keys[segment.slot, :, :end], layer.values[segment.slot, :, :end]))
        keys, values = zip(*parts, strict=True)
        return torch.cat(keys, 1).unsqueeze(0), torch.cat(values, 1).unsqueeze(0)


def attend_all(
    step: Step, layer: LayerKV, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
) -> Tensor:
    """[tokens, heads, size] from `query` [heads, tokens, size] and the keys and values [heads,
    seen, size] of all that `LatentCache` gave."""
    parts: list[Tensor] = []
    queries = torch.split(query, [segment.count for segment in step.segments], 1)
    seen = [segment.start + segment.count for segment in step.segments]
    made = zip(queries, torch.split(key, seen, 1), torch.split(value, seen, 1), strict=True)
    for part, keys, values in made:
        parts.append(attend(step, layer.capacity, part, keys, values, scoring))
    return torch.cat(parts)
