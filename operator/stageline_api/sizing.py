"""What the units of a model cost a stage: bytes that stay in memory, and time of one step.

Memory of a stage is the sum of
- weights, in the type that the stage holds them in; matrices of linear layers may have another.
  One that embedding and head share is held in both, which are as large as the two together;
- KV room: sequences x tokens that the layer's cache keeps x KV values of a token x bytes of one,
  which a stage allocates before it says that it is loaded;
- runtime: RUNTIME_BYTES for the process itself (interpreter, libraries, CUDA context), and
  ACTIVATION_VALUES x hidden size for each token of the largest microbatch, which is about what a
  layer holds at once (residual, query, key, value, a feed-forward of up to 3.5 x hidden three
  times, the frames that come and go); on the last stage also DRAW_BYTES for each sequence and
  token of the vocabulary: logits, weights and their sums, and the tokens that penalties count.

Time of a unit is a + b x bytes touched + c x floating point operations. The coefficients were
fitted on nine architectures (correlation with measured times 0.98 decoding, 0.97 in a forward
pass; parameter counts alone reach 0.63). They were measured on one CPU core and are right for
comparing units of one model with each other, which is all that a partition needs.
- Generation: one decode step of 8 sequences with 1,024 tokens each behind them.
- Inference: a forward pass over 64 tokens.
Of a mixture of experts, the routed experts that any of these tokens chose are touched: the share
1 - (1 - k/E)^tokens when k of E are chosen for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, repeat
from typing import Literal

from stageline_api.profile import ModelProfile, Unit
from stageline_api.spec import WeightDtypeName

ComputeDtype = Literal["float32", "bfloat16", "float16"]

DTYPE_BYTES: dict[ComputeDtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
RUNTIME_BYTES = 512 * 1024**2
ACTIVATION_VALUES = 16
DRAW_BYTES = 32
TOKENS_OF_AN_UNBOUNDED_ROW = 256  # ViT-B/16 has 197


@dataclass(frozen=True, slots=True)
class Regime:
    """A step whose time is estimated, and what was measured for it."""

    tokens: int
    context: int
    picoseconds_per_layer: int
    picoseconds_per_byte: int
    picoseconds_per_operation: int


DECODE = Regime(8, 1024, 910_000_000, 152, 19)
FORWARD = Regime(64, 0, 680_000_000, 345, 8)
EDGE_PICOSECONDS = 60_000_000  # of an embedding or a head, beside the bytes it touches


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may set that changes sizes."""

    dtype: ComputeDtype
    max_model_len: int  # tokens; 0 when the model takes none
    max_sequences: int
    prefill_chunk: int
    max_batch_size: int
    weight_dtype: WeightDtypeName | None = None  # of the matrices of linear layers; None: dtype

    @property
    def matrix_value(self) -> int:
        """Bytes of an element of a linear layer's matrix."""
        return DTYPE_BYTES[self.weight_dtype or self.dtype]


@dataclass(frozen=True, slots=True)
class Load:
    """What something costs the stage that holds it."""

    weight_bytes: int = 0
    kv_bytes: int = 0
    runtime_bytes: int = 0
    picoseconds: int = 0

    @property
    def needs_bytes(self) -> int:
        """Memory of all of it."""
        return self.weight_bytes + self.kv_bytes + self.runtime_bytes

    def __add__(self, other: Load) -> Load:
        return Load(
            self.weight_bytes + other.weight_bytes,
            self.kv_bytes + other.kv_bytes,
            self.runtime_bytes + other.runtime_bytes,
            self.picoseconds + other.picoseconds,
        )


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """Every piece of a model that a stage can be given."""

    layers: tuple[Load, ...]
    embedding: Load  # on the first stage
    head: Load  # on the last stage
    tied: Load  # on the last stage, when the first one is another
    every: Load  # on each stage

    def beside_layers(self, stage: int, stages: int) -> Load:
        """What `stage` holds beside its layers."""
        load = self.every
        if stage == 0:
            load += self.embedding
        if stage == stages - 1:
            load += self.head
            if stages > 1:
                load += self.tied
        return load


def model_load(profile: ModelProfile, settings: Settings) -> ModelLoad:
    """The pieces of `profile` under `settings`."""
    layers = (
        repeat(_layer(unit, profile, settings), unit.count) for unit in _units("layer", profile)
    )
    return ModelLoad(
        layers=tuple(chain.from_iterable(layers)),
        embedding=_embedding(profile, settings),
        head=_head(profile, settings),
        tied=Load(weight_bytes=profile.tied_parameters * settings.matrix_value),
        every=Load(runtime_bytes=_runtime_bytes(profile, settings)),
    )


def _layer(unit: Unit, profile: ModelProfile, settings: Settings) -> Load:
    value = DTYPE_BYTES[settings.dtype]
    regime = _regime(profile)
    kept = _tokens_kept(unit, settings.max_model_len)
    context = min(kept, regime.context) * regime.tokens
    weights = _weight_bytes(unit, settings)
    touched = weights * _touched(unit, regime.tokens) // max(unit.parameters, 1)
    touched += context * unit.kv_values_per_token * value
    generates = profile.task == "generate"
    return Load(
        weight_bytes=weights,
        kv_bytes=settings.max_sequences * kept * unit.kv_values_per_token * value * generates,
        picoseconds=regime.picoseconds_per_layer
        + touched * regime.picoseconds_per_byte
        + 2 * unit.active_parameters * regime.tokens * regime.picoseconds_per_operation,
    )


def _embedding(profile: ModelProfile, settings: Settings) -> Load:
    """Looks up one row a token: next to no time, whatever it weighs."""
    value, regime = DTYPE_BYTES[settings.dtype], _regime(profile)
    load = Load()
    for unit in _units("embedding", profile):
        touched = min(unit.parameters, unit.active_parameters * regime.tokens)
        load += Load(
            weight_bytes=_weight_bytes(unit, settings),
            picoseconds=EDGE_PICOSECONDS + touched * value * regime.picoseconds_per_byte,
        )
    return load


def _head(profile: ModelProfile, settings: Settings) -> Load:
    """Reads all of its matrix, its own or the embedding's, once a step."""
    regime = _regime(profile)
    own = sum(_weight_bytes(unit, settings) for unit in _units("head", profile))
    tied = profile.tied_parameters
    elements = sum(unit.parameters for unit in _units("head", profile)) + tied
    operations = 2 * elements * regime.tokens
    generates = profile.task == "generate"
    return Load(
        weight_bytes=own,
        runtime_bytes=DRAW_BYTES * settings.max_sequences * profile.vocab_size * generates,
        picoseconds=EDGE_PICOSECONDS * (elements > 0)
        + (own + tied * settings.matrix_value) * regime.picoseconds_per_byte
        + operations * regime.picoseconds_per_operation,
    )


def _weight_bytes(unit: Unit, settings: Settings) -> int:
    others = unit.parameters - unit.matrix_parameters
    return others * DTYPE_BYTES[settings.dtype] + unit.matrix_parameters * settings.matrix_value


def _units(kind: str, profile: ModelProfile) -> list[Unit]:
    return [unit for unit in profile.units if unit.kind == kind]


def _touched(unit: Unit, tokens: int) -> int:
    """Elements of a layer that a step of `tokens` tokens reads."""
    if not unit.expert_parameters:
        return unit.parameters
    dense = unit.parameters - unit.expert_parameters
    chosen = min(max((unit.active_parameters - dense) / unit.expert_parameters, 0.0), 1.0)
    return dense + int(unit.expert_parameters * (1 - (1 - chosen) ** tokens))


def _tokens_kept(unit: Unit, max_model_len: int) -> int:
    """Tokens of one sequence that the layer's KV cache holds."""
    return max_model_len if unit.kv_window is None else min(unit.kv_window, max_model_len)


def _runtime_bytes(profile: ModelProfile, settings: Settings) -> int:
    if profile.task == "generate":
        tokens = settings.prefill_chunk + settings.max_sequences
    else:
        row = settings.max_model_len or TOKENS_OF_AN_UNBOUNDED_ROW
        tokens = settings.max_batch_size * row
    value = DTYPE_BYTES[settings.dtype]
    return RUNTIME_BYTES + ACTIVATION_VALUES * profile.hidden_size * tokens * value


def _regime(profile: ModelProfile) -> Regime:
    return DECODE if profile.task == "generate" else FORWARD
