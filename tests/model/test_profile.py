"""A profile's figures are those of the real model and of its real cache."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from transformers import DynamicCache

from stageline_api.profile import ModelProfile, Unit
from stageline_worker.last_words import LIMIT, packed
from stageline_worker.model import UnsupportedModelError, profile
from stageline_worker.model.architectures import ARCHITECTURES
from stageline_worker.model.checkpoint import open_checkpoint
from support import zoo
from support.stages import tokens

every_model = pytest.mark.parametrize("name", sorted(zoo.ZOO))
every_decoder = pytest.mark.parametrize("name", sorted(zoo.DECODERS))


def _layers(name):
    """The profile's layers one by one."""
    units = profile(str(zoo.checkpoint(name))).units
    return [unit for unit in units if unit.kind == "layer" for _ in range(unit.count)]


def test_every_row_of_the_table_is_in_the_zoo():
    assert {row[0] for row in zoo.ZOO.values()} == set(ARCHITECTURES)


@every_model
def test_the_table_agrees_with_the_plan_that_transformers_has(name):
    model = zoo.uncut(name)
    plan = getattr(model.base_model.config, "base_model_pp_plan", None)
    if plan is None:
        return
    row = ARCHITECTURES[type(model).__name__]
    before, at, after = [], None, []
    for part in plan:
        if part == "layers":
            at = part
        else:
            (before if at is None else after).append(f"{model.base_model_prefix}.{part}")
    assert row.layers == f"{model.base_model_prefix}.{at}"
    assert row.embedding == tuple(before)
    assert row.head == (*after, "lm_head")


@every_model
def test_units_add_up_to_the_model(name):
    made = profile(str(zoo.checkpoint(name)))
    stored = open_checkpoint(str(zoo.checkpoint(name))).tensors.values()
    memory = {part.data_ptr(): part.numel() for part in zoo.uncut(name).state_dict().values()}
    assert made.layers == zoo.LAYERS
    assert sum(unit.parameters * unit.count for unit in made.units) == sum(memory.values())
    assert sum(unit.stored_bytes * unit.count for unit in made.units) == sum(t.size for t in stored)
    assert [unit.kind for unit in made.units if unit.kind != "layer"] == ["embedding", "head"]
    assert all(first != second for first, second in pairwise(made.units))
    assert made.task == ("generate" if name in zoo.DECODERS else "infer")
    assert made.dtype == "float32"
    assert made.hidden_size == 64


@every_model
def test_every_profile_fits_a_termination_message(name):
    made = profile(str(zoo.checkpoint(name)))
    assert len(packed(made)) < LIMIT / 4, "real models have twenty times the layers"


def test_a_profile_of_too_many_different_layers_is_refused_and_not_cut():
    units = tuple(
        Unit(kind="layer", parameters=n**7, active_parameters=n**5, stored_bytes=n**9)
        for n in range(1, 400)
    )
    made = profile(str(zoo.checkpoint("llama"))).model_copy(update={"units": units})
    assert isinstance(made, ModelProfile)
    with pytest.raises(ValueError, match="399 runs of layers differ"):
        packed(made)


@every_decoder
def test_kv_figures_are_those_of_the_real_cache(name):
    model, count = zoo.uncut(name), 20
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(tokens(1, count), past_key_values=cache, use_cache=True)
    for unit, layer in zip(_layers(name), cache.layers, strict=True):
        kept = count if unit.kv_window is None else min(count, unit.kv_window - 1)
        assert layer.keys.shape[2] == kept, f"{name} keeps {layer.keys.shape[2]} of {count} tokens"
        values = layer.keys.numel() + layer.values.numel()
        assert values == unit.kv_values_per_token * kept


def test_latent_attention_is_counted_compressed():
    assert _layers("deepseek_v3")[0].kv_values_per_token == 16 + 8  # kv_lora_rank, rope


def test_windows_go_by_layer():
    assert [unit.kv_window for unit in _layers("gemma3")] == [8, 8, 8, 8, 8, None]
    assert [unit.kv_window for unit in _layers("gemma2")] == [8, None] * 3
    assert [unit.kv_window for unit in _layers("qwen2")] == [None] * 3 + [8] * 3
    assert [unit.kv_window for unit in _layers("llama")] == [None] * 6


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3"])
def test_experts_are_told_apart(name):
    model = zoo.uncut(name)
    for unit, layer in zip(_layers(name), model.model.layers, strict=True):
        experts = getattr(layer.mlp, "experts", None)
        held = 0 if experts is None else sum(part.numel() for part in experts.parameters())
        assert unit.expert_parameters == held
        assert unit.active_parameters == unit.parameters - held // 2  # 2 of 4 experts a token


def test_an_embedding_reads_rows_of_its_tables():
    embedding = profile(str(zoo.checkpoint("bert"))).units[0]
    assert embedding.active_parameters == 64 * 3 + 64 * 2  # three tables, one norm
    assert profile(str(zoo.checkpoint("llama"))).units[0].active_parameters == 64


@pytest.mark.parametrize(
    ("name", "tied", "length", "vocabulary"),
    [
        ("llama", 0, 256, 320),
        ("llama_tied", 320 * 64, 256, 320),
        ("gpt2", 320 * 64, 256, 320),
        ("roberta", 0, 254, 320),  # positions start after the padding's
        ("vit", 0, 0, 0),
    ],
)
def test_limits_of_the_model(name, tied, length, vocabulary):
    made = profile(str(zoo.checkpoint(name)))
    assert (made.tied_parameters, made.max_model_len, made.vocab_size) == (tied, length, vocabulary)


def test_equal_neighbours_are_one_entry():
    units = profile(str(zoo.checkpoint("qwen3_moe"))).units
    assert [(unit.kind, unit.count) for unit in units] == [
        ("embedding", 1), ("layer", 1), ("layer", 1), ("layer", 4), ("head", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_dtype_is_the_checkpoints_own(dtype, tmp_path):
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(zoo.checkpoint("llama"), dtype=getattr(torch, dtype))
    model.save_pretrained(tmp_path)
    assert profile(str(tmp_path)).dtype == dtype
    config = json.loads((tmp_path / "config.json").read_text())
    del config["dtype"]  # older checkpoints do not say it
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert profile(str(tmp_path)).dtype == dtype


def test_layers_that_are_no_chain_are_refused(monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    init = LlamaDecoderLayer.__init__

    def init_with_rewriting(self, *args):
        init(self, *args)
        self.register_forward_pre_hook(lambda layer, args: (args[0] * 2,))

    monkeypatch.setattr(LlamaDecoderLayer, "__init__", init_with_rewriting)
    with pytest.raises(UnsupportedModelError, match="layer 1 does not take what the layer before"):
        profile(str(zoo.checkpoint("llama")))
