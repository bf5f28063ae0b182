"""What a model weighs, from its config and headers: the figures that a plan is made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from stageline_api.profile import ModelProfile, Unit
from stageline_worker.model.blueprint import EMBEDDING, HEAD, Blueprint, draw
from stageline_worker.model.checkpoint import Checkpoint, StoredTensor
from stageline_worker.model.loading import stage_dtype
from stageline_worker.model.opening import opened
from stageline_worker.model.pooling import read_pooling
from stageline_worker.model.signature import embeds_text, longest

_EXPERTS = ".experts."
_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def profile(uri: str) -> ModelProfile:
    """The profile of the model at `uri`, file://, hf:// or s3://, without reading any weights.

    Raises ModelError for whatever `load` would refuse in it.
    """
    with opened(uri) as found:
        return _profile(found.checkpoint, found.commit)


def _profile(checkpoint: Checkpoint, commit: str) -> ModelProfile:
    blueprint = draw(checkpoint)
    config = checkpoint.config
    if embeds_text(blueprint):
        read_pooling(checkpoint)
    return ModelProfile(
        architecture=blueprint.architecture.name,
        task="generate" if blueprint.architecture.generates else "infer",
        dtype=stage_dtype("auto", checkpoint),
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size if "input_ids" in blueprint.architecture.inputs else 0,
        max_model_len=longest(blueprint.architecture, config),
        tied_parameters=sum(checkpoint.tensors[name].elements for name in blueprint.tied),
        units=tuple(_units(blueprint, checkpoint.tensors, config)),
        commit=commit,
    )


def _units(blueprint: Blueprint, tensors: dict[str, StoredTensor], config: Any) -> Iterable[Unit]:
    held: dict[int, list[StoredTensor]] = defaultdict(list)
    for name, index in blueprint.units.items():
        held[index].append(tensors[name])
    routed = _routed_share(config)
    embedding = _unit("embedding", held[EMBEDDING], blueprint, routed)
    yield embedding.model_copy(update={"active_parameters": blueprint.embedding_row})
    layers = [_layer(blueprint, held[index], index, routed) for index in range(blueprint.layers)]
    for unit, same in groupby(layers):
        yield unit.model_copy(update={"count": len(list(same))})
    yield _unit("head", held[HEAD], blueprint, routed)


def _layer(blueprint: Blueprint, tensors: list[StoredTensor], index: int, routed: float) -> Unit:
    unit = _unit("layer", tensors, blueprint, routed)
    if not blueprint.caches:
        return unit
    cache = blueprint.caches[index]
    return unit.model_copy(
        update={"kv_values_per_token": cache.values_per_token, "kv_window": cache.window}
    )


def _unit(kind: Any, tensors: list[StoredTensor], blueprint: Blueprint, routed: float) -> Unit:
    total = sum(tensor.elements for tensor in tensors)
    experts = sum(tensor.elements for tensor in tensors if _EXPERTS in tensor.name)
    return Unit(
        kind=kind,
        parameters=total,
        active_parameters=total - experts + round(experts * routed),
        expert_parameters=experts,
        matrix_parameters=sum(t.elements for t in tensors if t.name in blueprint.matrices),
        stored_bytes=sum(tensor.size for tensor in tensors),
    )


def _routed_share(config: Any) -> float:
    """Of a mixture's experts, the share that one token goes through."""
    counts = (getattr(config, name, None) for name in _EXPERT_COUNTS)
    experts = next((count for count in counts if count), None)
    return config.num_experts_per_tok / experts if experts else 1.0
