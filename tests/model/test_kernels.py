"""Stand-ins with fewer kernels: where they are, that they compute the same, and what stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.activations import NewGELUActivation
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.llama import modeling_llama

from stageline_worker.model import load
from stageline_worker.model.kernels import RootMeanSquareNorm, TanhGelu, _rotation, quicken
from support import zoo

ROTATING = ["deepseek_v3", "gemma2", "gemma3", "gpt_neox", "llama", "mistral", "mixtral", "phi3",
            "qwen2", "qwen3", "qwen3_moe"]  # fmt: skip


def whole(name, **options):
    return load(str(zoo.checkpoint(name)), (0, zoo.LAYERS), **options)._cut.model


def parts(model, kind):
    return [part for part in model.modules() if kind in type(part).__name__]


@pytest.mark.parametrize("name", sorted(zoo.DECODERS))
def test_no_norm_of_a_decoder_is_left_to_many_kernels(name):
    assert not parts(whole(name), "RMSNorm")
    made = [part for part in whole(name).modules() if type(part) is RootMeanSquareNorm]
    assert len(made) == len(parts(zoo.uncut(name), "RMSNorm"))


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_oss"])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_a_norm_is_the_same_for_small_and_large_numbers(name, size):
    own, made = parts(zoo.uncut(name), "RMSNorm")[0], parts(whole(name), "RootMeanSquareNorm")[0]
    rows = torch.randn(2, 7, own.weight.shape[0]) * size
    rows[0, 0] = 0.0
    with torch.inference_mode():
        torch.testing.assert_close(made(rows), own(rows), rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("name", sorted(zoo.DECODERS))
def test_attention_rotates_in_fewer_kernels_where_it_rotates_half_split_heads(name):
    swapped = sum("forward" in vars(part) for part in whole(name).modules())
    assert swapped == (zoo.LAYERS if name.removesuffix("_tied") in ROTATING
                       or name == "phi3_longrope" else 0)  # fmt: skip


@pytest.mark.parametrize("modeling", [modeling_llama, modeling_gpt_neox])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_rotation_is_the_models_own(modeling, rows):
    own, made = modeling.apply_rotary_pos_emb, _rotation(modeling.apply_rotary_pos_emb)
    for rotated in (16, 4) if modeling is modeling_gpt_neox else (16,):
        angles = torch.randn(rows, 5, rotated // 2).repeat(1, 1, 2)
        query, key = torch.randn(rows, 6, 5, 16), torch.randn(rows, 2, 5, 16)
        kept = query.clone()
        for _ in range(2):  # the second time from what it kept of the tables
            pair = made(query, key, angles.cos(), angles.sin())
            for one, other in zip(pair, own(query, key, angles.cos(), angles.sin()), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)
        assert torch.equal(query, kept), "what was rotated is no longer what it was"


def test_other_axes_are_left_to_the_models_own_rotation():
    own = modeling_llama.apply_rotary_pos_emb
    angles = torch.randn(1, 5, 4).repeat(1, 1, 2)
    given = (torch.randn(1, 5, 6, 8), torch.randn(1, 5, 2, 8), angles.cos(), angles.sin(), 2)
    for one, other in zip(_rotation(own)(*given), own(*given), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "own",
    [
        modeling_gpt_oss.apply_rotary_pos_emb,
        modeling_deepseek_v3.apply_rotary_pos_emb_interleave,
        lambda q, k, cos, sin: (q * cos.unsqueeze(1), k),
    ],
    ids=["half tables", "interleaved", "something else"],
)
def test_a_rotation_that_does_not_agree_stays(own):
    assert _rotation(own) is None


def test_transformers_itself_is_not_changed():
    forward, rotate = modeling_llama.LlamaAttention.forward, modeling_llama.apply_rotary_pos_emb
    model = whole("llama")
    assert model.model.layers[0].self_attn.forward.__func__ is not forward
    assert modeling_llama.LlamaAttention.forward is forward
    assert modeling_llama.apply_rotary_pos_emb is rotate
    assert forward.__globals__["apply_rotary_pos_emb"] is rotate


def test_the_activation_of_gpt2_is_one_kernel_and_the_same():
    made = parts(whole("gpt2"), "TanhGelu")
    assert len(made) == zoo.LAYERS
    numbers = torch.linspace(-12, 12, 5000)
    torch.testing.assert_close(
        TanhGelu()(numbers), NewGELUActivation()(numbers), rtol=1e-5, atol=2e-6
    )


def test_what_does_not_agree_stays():
    class ShiftedRMSNorm(modeling_llama.LlamaRMSNorm):
        def forward(self, hidden_states):
            return super().forward(hidden_states) + 0.01

    class Model(nn.Module):
        dtype = torch.float32

        def __init__(self):
            super().__init__()
            self.known, self.shifted = modeling_llama.LlamaRMSNorm(8), ShiftedRMSNorm(8)
            self.nameless = nn.LayerNorm(8)

    model = Model()
    quicken(model)
    kinds = [type(part) for part in (model.known, model.shifted, model.nameless)]
    assert kinds == [RootMeanSquareNorm, ShiftedRMSNorm, nn.LayerNorm]


def test_a_stage_in_bfloat16_keeps_its_modules():
    model = whole("llama", dtype="bfloat16")
    assert len(parts(model, "RMSNorm")) == 2 * zoo.LAYERS + 1
    assert not any("forward" in vars(part) for part in model.modules())
