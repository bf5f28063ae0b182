"""What a model weighs, unit by unit: read from its config and safetensors headers, never weights.

The worker image makes a profile (`python -m stageline_worker profile URI`), the plan uses it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Unit(_Document):
    """A piece of the model that is never cut. Equal neighbouring layers are one entry, counted."""

    kind: Literal["embedding", "layer", "head"]
    count: int = Field(
        default=1, ge=1, le=10_000, description="Neighbouring layers with these figures."
    )
    parameters: int = Field(ge=0, description="Elements of all its weight tensors.")
    active_parameters: int = Field(
        ge=0,
        description="Elements read for one token: all of a dense layer, the routed experts of a "
        "mixture, one row of an embedding.",
    )
    expert_parameters: int = Field(
        default=0, ge=0, description="Elements of all routed experts of a mixture; 0 when dense."
    )
    matrix_parameters: int = Field(
        default=0, ge=0, description="Elements of the matrices of its linear layers, in all."
    )
    stored_bytes: int = Field(ge=0, description="Bytes of its tensors in the checkpoint.")
    kv_values_per_token: int = Field(
        default=0, ge=0, description="Elements that its KV cache keeps for one token."
    )
    kv_window: int | None = Field(
        default=None, description="Tokens its KV cache keeps at most (sliding attention)."
    )


class ModelProfile(_Document):
    """The units of one checkpoint in order: embedding, layers, head."""

    architecture: str = Field(description="The transformers class, for example LlamaForCausalLM.")
    task: Literal["infer", "generate"]
    dtype: str = Field(description="The checkpoint's own: float32, bfloat16 or float16.")
    hidden_size: int
    vocab_size: int = Field(description="0 when the model takes no tokens.")
    max_model_len: int = Field(description="Tokens that its positions allow; 0 when unbounded.")
    tied_parameters: int = Field(
        description="Of the embedding's: what the head computes with too, and is counted there "
        "alone."
    )
    units: tuple[Unit, ...]
    commit: str = Field(
        default="",
        max_length=64,
        pattern=r"^[0-9a-f]*$",
        description="What the address's revision stood for when this was read, and what stages "
        "and routers read then; empty where the source has no such thing.",
    )

    @property
    def layers(self) -> int:
        """How many layers can be dealt to stages."""
        return sum(unit.count for unit in self.units if unit.kind == "layer")
