"""Profiles of models that are not here: figures enough to plan with."""

from __future__ import annotations

from stageline_api.profile import ModelProfile, Unit

GIB = 1024**3


def dense(
    layers: int = 6,
    *,
    hidden: int = 1024,
    per_layer: int = 100_000_000,
    vocabulary: int = 32_000,
    kv_values: int = 1024,
    max_model_len: int = 8192,
    tied: bool = False,
    task: str = "generate",
    dtype: str = "bfloat16",
    kv_window: int | None = None,
    commit: str = "",
) -> ModelProfile:
    """A decoder (or encoder) whose layers are all alike."""
    matrix = vocabulary * hidden
    head = 0 if tied else matrix
    return ModelProfile.model_validate(
        {
            "architecture": "LlamaForCausalLM",
            "task": task,
            "dtype": dtype,
            "hidden_size": hidden,
            "vocab_size": vocabulary,
            "max_model_len": max_model_len,
            "tied_parameters": matrix if tied else 0,
            "commit": commit,
            "units": [
                unit("embedding", matrix, active=hidden),
                unit("layer", per_layer, count=layers, kv=kv_values, window=kv_window),
                unit("head", head),
            ],
        }
    )


def llama_70b() -> ModelProfile:
    """Llama 3.1 70B."""
    return dense(
        80, hidden=8192, per_layer=855_654_400, vocabulary=128_256, kv_values=2048,
        max_model_len=131_072,
    )  # fmt: skip


def unit(
    kind: str,
    parameters: int,
    *,
    active: int | None = None,
    experts: int = 0,
    count: int = 1,
    kv: int = 0,
    window: int | None = None,
) -> Unit:
    """A unit in bfloat16."""
    return Unit.model_validate(
        {
            "kind": kind,
            "count": count,
            "parameters": parameters,
            "active_parameters": parameters if active is None else active,
            "expert_parameters": experts,
            "stored_bytes": 2 * parameters,
            "kv_values_per_token": kv,
            "kv_window": window,
        }
    )
