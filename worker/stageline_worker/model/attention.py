"""Attention of packed tokens over KV slots, for transformers' own modules.

A microbatch's tokens are one row [1, tokens] to the model. It makes no mask for an implementation
that it does not know, and gives every layer's queries, keys and values here; which of them belong
together is the step's to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from stageline_worker.microbatch import Segment
from stageline_worker.model import latent
from stageline_worker.model.kv import LayerKV
from stageline_worker.model.place import Place
from stageline_worker.model.scores import Scoring, attend, weigh
from stageline_worker.model.step import Step

_NAME = "stageline_packed"
_PLACE = "stageline_place"  # attribute of an attention module


def settle(layers: nn.ModuleList, place: Place) -> None:
    """Let the attention of those of `layers` that `place` has room for use it."""
    for index in place.kv.layers:
        for module in layers[index].modules():
            if getattr(module, "layer_idx", None) == index:
                setattr(module, _PLACE, place)


@contextmanager
def packed(config: Any, place: Place, step: Step) -> Iterator[None]:
    """In the block, the model with `config` computes `step`."""
    own = config._attn_implementation
    config._attn_implementation = _NAME
    place.step = step
    try:
        yield
    finally:
        config._attn_implementation = own
        place.step = None


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """From [1, heads, tokens, size] to [1, tokens, heads, size], as transformers wants it."""
    place: Place = getattr(module, _PLACE)
    step, layer = place.computed, place.kv.layers[module.layer_idx]  # type: ignore[index]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scoring = Scoring(scale, softcap, s_aux)
    compute = latent.attend_all if place.latent else _attend_all
    attended = compute(step, layer, query[0], key[0], value[0], scoring)
    return attended.unsqueeze(0), None


AttentionInterface.register(_NAME, _attention)


def _attend_all(
    step: Step, layer: LayerKV, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
) -> Tensor:
    """[tokens, heads, size] from query, key and value [heads, tokens, size]."""
    parts = []
    begin = step.decoding
    if begin:
        parts += _decode(step, layer, query[:, :begin], key[:, :begin], value[:, :begin], scoring)
    for segment in step.chunks:
        rows = slice(begin, begin + segment.count)
        keys, values = _with_past(layer, segment, key[:, rows], value[:, rows])
        parts.append(attend(step, layer.capacity, query[:, rows], keys, values, scoring))
        begin = rows.stop
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _decode(
    step: Step, layer: LayerKV, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
) -> list[Tensor]:
    rows = step.decode(layer.capacity)
    heads, count = key.shape[:2]
    places = rows.places(heads)
    _keep(layer.keys, key, places)
    _keep(layer.values, value, places)
    # Heads that share keys stand as queries of one head, so that no key is repeated.
    queries = query.transpose(0, 1).view(count, heads, -1, query.shape[-1])
    sinks = None if scoring.sinks is None else scoring.sinks.view(1, heads, -1, 1)
    parts = []
    for run, mask in zip(rows.runs, rows.masks, strict=True):
        slots = slice(run.slot, run.slot + len(run.lengths))
        made = weigh(
            queries[run.row : run.row + len(run.lengths)],
            layer.keys[slots, :, : run.longest],
            layer.values[slots, :, : run.longest],
            mask,
            scoring,
            sinks,
        )
        parts.append(made.flatten(1, 2))
    return parts


def _keep(kept: Tensor, new: Tensor, places: Tensor) -> None:
    """Write `new` [heads, rows, size] to `kept` [slots, heads, capacity, size], all as one list of
    rows of `size`: half the time of an assignment by slots and places."""
    size = new.shape[-1]
    kept.view(-1, size).index_copy_(0, places, new.transpose(0, 1).reshape(-1, size))


def _with_past(
    layer: LayerKV, segment: Segment, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Keys and values [heads, tokens, size] of all that the segment attends to, in order of
    position; the segment's own are kept for what follows it."""
    slot, start, capacity = segment.slot, segment.start, layer.capacity
    end = start + segment.count
    if end <= capacity:
        layer.keys[slot, :, start:end] = key
        layer.values[slot, :, start:end] = value
        return layer.keys[slot, :, :end], layer.values[slot, :, :end]
    past = torch.arange(max(0, start - capacity + 1), start, device=key.device) % capacity
    keys = torch.cat((layer.keys[slot][:, past], key), dim=1)
    values = torch.cat((layer.values[slot][:, past], value), dim=1)
    kept = min(segment.count, capacity)
    places = torch.arange(end - kept, end, device=key.device) % capacity
    layer.keys[slot][:, places] = key[:, -kept:]
    layer.values[slot][:, places] = value[:, -kept:]
    return keys, values
