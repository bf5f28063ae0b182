"""Which models can be cut, and where: one row for each transformers class.

A model can be cut when its layers are a chain: each takes what the layer before it returned, and
nothing else that an earlier layer computed. `blueprint` checks that on the meta device for every
checkpoint; this table only says where the layers and their surroundings are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stageline_worker.model.errors import UnsupportedModelError

TEXT = ("input_ids", "attention_mask")
PAIRED_TEXT = (*TEXT, "token_type_ids")
IMAGE = ("pixel_values",)


@dataclass(frozen=True, slots=True)
class Architecture:
    """Where a transformers class keeps its layers, by dotted module names."""

    name: str
    layers: str
    embedding: tuple[str, ...]  # run before the layers
    head: tuple[str, ...]  # run after them
    inputs: tuple[str, ...]  # of the model's forward; the first is required
    generates: bool = False
    # A weight of an embedding module whose dtype the model's forward reads before any layer.
    asks: str = ""
    # A module that a checkpoint may leave out, with the output it makes.
    optional: tuple[str, str] | None = None
    positions_start_after_padding: bool = False
    # Its cache keeps what keys and values are made from, not these.
    latent: bool = False


def _decoder(
    name: str,
    base: str = "model",
    layers: str = "layers",
    embedding: tuple[str, ...] = ("embed_tokens",),
    head: tuple[str, ...] = ("norm",),
    **options: Any,
) -> Architecture:
    return Architecture(
        name,
        layers=f"{base}.{layers}",
        embedding=tuple(f"{base}.{module}" for module in embedding),
        head=(*(f"{base}.{module}" for module in head), "lm_head"),
        inputs=TEXT,
        generates=True,
        **options,
    )


def _encoder(name: str, base: str, head: tuple[str, ...], **options: Any) -> Architecture:
    return Architecture(
        name, layers=f"{base}encoder.layer", embedding=(f"{base}embeddings",), head=head, **options
    )


def _bert(
    name: str, base: str = "bert.", head: tuple[str, ...] = (), **options: Any
) -> Architecture:
    return _encoder(name, base, head, inputs=PAIRED_TEXT, **options)


def _roberta(
    name: str, base: str = "roberta.", head: tuple[str, ...] = (), **options: Any
) -> Architecture:
    return _encoder(name, base, head, inputs=TEXT, positions_start_after_padding=True, **options)


def _vit(name: str, base: str, head: tuple[str, ...], **options: Any) -> Architecture:
    return Architecture(
        name,
        layers=f"{base}layers",
        embedding=(f"{base}embeddings",),
        head=(f"{base}layernorm", *head),
        inputs=IMAGE,
        asks="patch_embeddings.projection.weight",
        **options,
    )


_POOLER = ("pooler", "pooler_output")

_ROWS = (
    _decoder("LlamaForCausalLM"),
    _decoder("MistralForCausalLM"),
    _decoder("Qwen2ForCausalLM"),
    _decoder("Qwen3ForCausalLM"),
    _decoder("Gemma2ForCausalLM"),
    _decoder("Gemma3ForCausalLM"),
    _decoder("Phi3ForCausalLM"),
    _decoder("MixtralForCausalLM"),
    _decoder("Qwen3MoeForCausalLM"),
    _decoder("GptOssForCausalLM"),
    _decoder("DeepseekV3ForCausalLM", latent=True),
    _decoder(
        "GPTNeoXForCausalLM",
        base="gpt_neox",
        embedding=("embed_in", "emb_dropout"),
        head=("final_layer_norm",),
    ),
    _decoder(
        "GPT2LMHeadModel",
        base="transformer",
        layers="h",
        embedding=("wte", "wpe", "drop"),
        head=("ln_f",),
    ),
    _decoder(
        "OPTForCausalLM",
        base="model.decoder",
        embedding=("embed_tokens", "embed_positions", "project_in"),
        head=("final_layer_norm", "project_out"),
    ),
    _bert("BertModel", base="", head=("pooler",), optional=_POOLER),
    _bert("BertForSequenceClassification", head=("bert.pooler", "dropout", "classifier")),
    _bert("BertForTokenClassification", head=("dropout", "classifier")),
    _bert("BertForMaskedLM", head=("cls",)),
    _roberta("RobertaModel", base="", head=("pooler",), optional=_POOLER),
    _roberta("RobertaForSequenceClassification", head=("classifier",)),
    _roberta("RobertaForTokenClassification", head=("dropout", "classifier")),
    _vit("ViTModel", base="", head=("pooler",), optional=_POOLER),
    _vit("ViTForImageClassification", base="vit.", head=("classifier",)),
)

ARCHITECTURES: dict[str, Architecture] = {row.name: row for row in _ROWS}

_RECURRENT = "it carries a recurrent state, not the KV cache of attention layers"
_NOT_A_CHAIN = {
    "Gemma3nForCausalLM": "each layer also reads its own part of the embedding",
    "Gemma3nForConditionalGeneration": "each layer also reads its own part of the embedding",
    "ZambaForCausalLM": "its layers share one attention block",
    "MambaForCausalLM": _RECURRENT,
    "Mamba2ForCausalLM": _RECURRENT,
    "Qwen3NextForCausalLM": _RECURRENT,
    "Lfm2ForCausalLM": _RECURRENT,
}


def find(config: Mapping[str, Any]) -> Architecture:
    """The row for what config.json says; UnsupportedModelError says why there is none."""
    name = _class_name(config)
    if name in _NOT_A_CHAIN:
        raise UnsupportedModelError(
            f"{name} cannot be cut into stages: {_NOT_A_CHAIN[name]}; serve it in one process"
        )
    if config.get("is_encoder_decoder"):
        raise UnsupportedModelError(
            f"{name} is an encoder-decoder, not a chain of layers; choose an encoder or a decoder"
        )
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"{name} is not supported; supported are {', '.join(sorted(ARCHITECTURES))}"
        )
    architecture = ARCHITECTURES[name]
    _refuse_variants(architecture, config)
    return architecture


def _class_name(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise UnsupportedModelError(
            'config.json does not say which class the model is: add "architectures", '
            'for example ["LlamaForCausalLM"]'
        )
    return names[0]


def _refuse_variants(architecture: Architecture, config: Mapping[str, Any]) -> None:
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UnsupportedModelError(
            f"the weights are quantized ({method or 'method not named'}), and this version reads "
            "float32, bfloat16 and float16; choose the unquantized checkpoint"
        )
    as_decoder = not architecture.generates and config.get("is_decoder")
    if as_decoder or config.get("add_cross_attention"):
        raise UnsupportedModelError(
            f"{architecture.name} is configured as a decoder of another model "
            "(is_decoder, add_cross_attention), which is not supported"
        )
