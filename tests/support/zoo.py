"""Tiny random checkpoints of every architecture, made once per test session.

`checkpoint(name)` gives the folder. Norms and biases are random too, so that a part that is left
out or swapped shows; weights are sharded, six layers each.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
import zlib
from functools import cache
from pathlib import Path
from typing import Any

LAYERS = 6
VOCABULARY = 320
IMAGE = (3, 32, 32)
_OLD_SECONDS = 3600

_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
_LLAMA = {
    **_TEXT, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GEMMA = {**_LLAMA, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16}
_EXPERTS = {"num_experts_per_tok": 2}
_GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 64, "n_layer": LAYERS, "n_head": 4, "n_positions": 256,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_OPT = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": LAYERS, "ffn_dim": 128,
    "num_attention_heads": 4, "max_position_embeddings": 256,
}  # fmt: skip
_YARN = {
    "rope_type": "yarn", "rope_theta": 150000.0, "factor": 4.0, "beta_fast": 32.0,
    "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 64,
}  # fmt: skip
_LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8,
    "long_factor": [1.0 + place for place in range(8)], "factor": 4.0,
}  # fmt: skip
_DEEPSEEK = {
    "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
    "moe_intermediate_size": 32, "q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 16, "first_k_dense_replace": 1,
}  # fmt: skip
_VIT = {
    "hidden_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "intermediate_size": 128, "image_size": IMAGE[1], "patch_size": 8,
}  # fmt: skip
_THREE_LABELS = {"num_labels": 3}

# name: (class, config class, what differs from the config's defaults)
DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", _LLAMA),
    "llama_tied": ("LlamaForCausalLM", "LlamaConfig", {**_LLAMA, "tie_word_embeddings": True}),
    "qwen2": (
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**_LLAMA, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3},
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**_LLAMA, "head_dim": 16}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**_LLAMA, "sliding_window": 8}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", _GEMMA),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", _GEMMA),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**_LLAMA, "sliding_window": None}),
    "phi3_longrope": (
        "Phi3ForCausalLM",
        "Phi3Config",
        {
            **_LLAMA,
            "sliding_window": None,
            "rope_parameters": _LONGROPE,
            "original_max_position_embeddings": 64,
        },
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**_TEXT, "eos_token_id": 2}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", _GPT2),
    "opt": ("OPTForCausalLM", "OPTConfig", {**_OPT, "word_embed_proj_dim": 64}),
    "opt_projected": (
        "OPTForCausalLM",
        "OPTConfig",
        {**_OPT, "word_embed_proj_dim": 32, "do_layer_norm_before": False},
    ),
    "mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**_LLAMA, **_EXPERTS, "num_local_experts": 4},
    ),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {
            **_LLAMA,
            **_EXPERTS,
            "head_dim": 16,
            "num_experts": 4,
            "moe_intermediate_size": 64,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [1],
        },
    ),
    "gpt_oss": (
        "GptOssForCausalLM",
        "GptOssConfig",
        {
            **_LLAMA,
            **_EXPERTS,
            "head_dim": 16,
            "num_local_experts": 4,
            "sliding_window": 8,
            "rope_parameters": _YARN,
        },
    ),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        {**_LLAMA, **_EXPERTS, **_DEEPSEEK},
    ),
}
ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertConfig", _TEXT),
    "bert_classifier": ("BertForSequenceClassification", "BertConfig", {**_TEXT, **_THREE_LABELS}),
    "bert_tagger": ("BertForTokenClassification", "BertConfig", {**_TEXT, **_THREE_LABELS}),
    "bert_masked": ("BertForMaskedLM", "BertConfig", _TEXT),
    "roberta": ("RobertaModel", "RobertaConfig", _TEXT),
    "roberta_classifier": (
        "RobertaForSequenceClassification",
        "RobertaConfig",
        {**_TEXT, **_THREE_LABELS},
    ),
    "roberta_tagger": (
        "RobertaForTokenClassification",
        "RobertaConfig",
        {**_TEXT, **_THREE_LABELS},
    ),
}
VISION: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViTModel", "ViTConfig", _VIT),
    "vit_classifier": ("ViTForImageClassification", "ViTConfig", {**_VIT, **_THREE_LABELS}),
}
ZOO = {**DECODERS, **ENCODERS, **VISION}


@cache
def checkpoint(name: str) -> Path:
    """The folder of the checkpoint `name` of ZOO; processes of one test session share it."""
    folder = _session_folder() / name
    if not folder.is_dir():
        _make(name, folder)
    return folder


@cache
def uncut(name: str) -> Any:
    """The whole model as transformers loads it, float32 on the CPU."""
    import transformers

    return getattr(transformers, ZOO[name][0]).from_pretrained(checkpoint(name)).eval()


@cache
def _session_folder() -> Path:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")  # one for all workers of a run
    if run is None:
        folder = Path(tempfile.mkdtemp(prefix="stageline-zoo-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    shared = Path(tempfile.gettempdir()) / f"stageline-zoo-{os.getuid()}"
    folder = shared / run
    if not folder.is_dir():
        _drop_old_runs(shared)
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _drop_old_runs(shared: Path) -> None:
    # No worker of a run knows that it is the last, so a later run tidies up.
    for folder in shared.glob("*"):
        if time.time() - folder.stat().st_mtime > _OLD_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _make(name: str, folder: Path) -> None:
    """Write beside `folder`, then rename: whoever renames first wins, both are equal."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    _random_model(name).save_pretrained(temporary, max_shard_size="150KB")
    try:
        temporary.rename(folder)
    except OSError:
        shutil.rmtree(temporary)
        if not folder.is_dir():
            raise


def _random_model(name: str) -> Any:
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    class_name, config_name, options = ZOO[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        config = getattr(transformers, config_name)(**options)
        model = getattr(transformers, class_name)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
                elif parameter.shape[0] != VOCABULARY:
                    parameter.mul_(3.0)
            for name, buffer in model.named_buffers():
                if name.endswith("e_score_correction_bias"):
                    buffer.add_(torch.randn_like(buffer) * 0.1)
    return model
