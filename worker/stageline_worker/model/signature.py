"""What clients see of a model: its inputs, its outputs, its limits."""

from __future__ import annotations

from typing import Any

from stageline_worker.microbatch import ModelInfo, TensorSpec
from stageline_worker.model.architectures import Architecture
from stageline_worker.model.blueprint import Blueprint, image_shape
from stageline_worker.model.checkpoint import Checkpoint
from stageline_worker.model.errors import StageError

EMBEDDING_OUTPUT = "embedding"
_DATATYPES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}


def model_info(
    checkpoint: Checkpoint, blueprint: Blueprint, dtype: str, max_model_len: int | None
) -> ModelInfo:
    """The model of `checkpoint` computed in `dtype`; StageError when a length is asked for that
    its positions do not allow."""
    config, architecture = checkpoint.config, blueprint.architecture
    takes_text = "input_ids" in architecture.inputs
    embeds = embeds_text(blueprint)
    return ModelInfo(
        architecture=architecture.name,
        generates=architecture.generates,
        layers=blueprint.layers,
        vocab_size=config.vocab_size if takes_text else 0,
        max_model_len=_model_len(architecture, config, max_model_len) if takes_text else 0,
        eos_token_ids=_eos(checkpoint) if architecture.generates else (),
        pad_token_id=config.pad_token_id or 0 if takes_text else 0,
        embeds_text=embeds,
        inputs=_inputs(architecture, config),
        outputs=_outputs(blueprint, _DATATYPES[dtype], embeds),
    )


def embeds_text(blueprint: Blueprint) -> bool:
    """Whether the model makes one vector of a text: an encoder without a task's head."""
    return "input_ids" in blueprint.architecture.inputs and "last_hidden_state" in blueprint.outputs


def longest(architecture: Architecture, config: Any) -> int:
    """Tokens that the model's positions allow; 0 when it takes none."""
    if "input_ids" not in architecture.inputs:
        return 0
    positions = int(config.max_position_embeddings)
    if architecture.positions_start_after_padding:
        positions -= config.pad_token_id + 1
    return positions


def _model_len(architecture: Architecture, config: Any, asked: int | None) -> int:
    allowed = longest(architecture, config)
    if asked is not None and asked < 1:
        raise StageError(f"maxModelLen is {asked}, it must be at least 1")
    return allowed if asked is None else min(allowed, asked)


def _eos(checkpoint: Checkpoint) -> tuple[int, ...]:
    # generation_config.json knows the end-of-turn tokens of chat models, config.json often not.
    generation = checkpoint.read_json("generation_config.json")
    value = generation.get("eos_token_id") if isinstance(generation, dict) else None
    if value is None:
        value = checkpoint.config.eos_token_id
    values = value if isinstance(value, list) else [value]
    return tuple(token for token in values if type(token) is int)


def _inputs(architecture: Architecture, config: Any) -> tuple[TensorSpec, ...]:
    if "pixel_values" in architecture.inputs:
        return (TensorSpec("pixel_values", "FP32", (-1, *image_shape(config))),)
    # Beyond its table an id ends the process on a GPU: whoever takes requests must refuse it.
    limits = {
        "input_ids": config.vocab_size,
        "attention_mask": 2,
        "token_type_ids": getattr(config, "type_vocab_size", 0),
    }
    return tuple(
        TensorSpec(name, "INT64", (-1, -1), optional=index > 0, limit=limits[name])
        for index, name in enumerate(architecture.inputs)
    )


def _outputs(blueprint: Blueprint, datatype: str, embeds: bool) -> tuple[TensorSpec, ...]:
    takes_text = "input_ids" in blueprint.architecture.inputs
    specs = []
    for name, shape in blueprint.outputs.items():
        tokens = (-1,) if takes_text and len(shape) == 3 else shape[1:2]
        specs.append(TensorSpec(name, datatype, (-1, *tokens, *shape[2:])))
    if embeds:
        size = blueprint.outputs["last_hidden_state"][-1]
        specs.append(TensorSpec(EMBEDDING_OUTPUT, datatype, (-1, size)))
    return tuple(specs)
