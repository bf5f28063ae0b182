"""A matrix as oneDNN wants it multiplies as the plain one does."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stageline_worker.model import linear, load
from stageline_worker.model.linear import PackedLinear, hold
from support import zoo
from support.stages import CUTS, inputs, stages

sizes = st.one_of(st.integers(1, 600), st.sampled_from([1408, 8000, 50257]))


@given(
    sizes, st.integers(1, 40), st.one_of(st.integers(0, 5), st.sampled_from([64, 65, 200])),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60)
def test_products_are_those_of_the_plain_layer(outputs, size, rows, biased, seed):
    torch.manual_seed(seed)
    plain = nn.Linear(size, outputs, bias=biased)
    given_rows = torch.randn(2, rows, size)
    with torch.inference_mode():
        expected = plain(given_rows)
        made = PackedLinear(plain.weight, plain.bias)(given_rows)
    assert made.shape == expected.shape
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_kernels_are_written_for_few_numbers_of_rows(monkeypatch):
    """oneDNN keeps a thousand: prompts of any length must not have each its own."""
    linear, asked = PackedLinear(torch.randn(8, 4), None), set()
    product = linear._product
    monkeypatch.setattr(
        linear, "_product", lambda rows: asked.add(rows.numel() // 4) or product(rows)
    )
    with torch.inference_mode():
        for rows in range(1, 1025):
            assert linear(torch.randn(1, rows, 4)).shape == (1, rows, 8)
    assert len(asked) == 128 + 1024 // 128 - 1


class Attention(nn.Module):
    """Queries, keys and values of different sizes, with biases but for one."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(12, 8), nn.Linear(12, 4, bias=False)
        self.v_proj = nn.Linear(12, 20)

    def forward(self, given, order="qkv"):
        parts = {name: getattr(self, f"{name}_proj")(given) for name in order}
        return torch.cat([parts[name] for name in "qkv"], dim=-1)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("order", ["qkv", "vkq"])
def test_layers_that_are_given_the_same_are_computed_once(half, order):
    plain = Attention()
    with torch.no_grad():
        for part in plain.parameters():
            part.copy_(part.half().float())
    model = copy.deepcopy(plain)
    hold(model, embeds=True, half=half)
    joined = model.q_proj.joined
    calls = []
    joined.linear.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        for turn in range(3):
            rows = torch.randn(1, 5, 12)
            torch.testing.assert_close(model(rows, order), plain(rows), rtol=1e-5, atol=1e-5)
            assert len(calls) == turn + 1, "more products than one"
            assert joined._given is None, "the step's tensor is kept"
        # Asked again, or for something else in between, each gets its own.
        one, other = torch.randn(1, 2, 12), torch.randn(1, 2, 12)
        for given_rows in (one, other, one, one):
            torch.testing.assert_close(
                model.k_proj(given_rows), plain.k_proj(given_rows), rtol=1e-5, atol=1e-5
            )


def test_siblings_without_numbers_wait_for_them():
    model = Attention()
    model.k_proj.to("meta")
    hold(model, embeds=True)
    assert [type(part) for part in (model.q_proj, model.k_proj)] == [nn.Linear, nn.Linear]
    model.k_proj = nn.Linear(12, 4)
    hold(model, embeds=True)
    assert model.q_proj.joined is model.v_proj.joined


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("llama", []),
        ("llama_tied", ["lm_head"]),
        ("gpt2", ["lm_head"]),
        ("opt", ["lm_head"]),
        ("gemma2", ["lm_head"]),
    ],
)
def test_every_matrix_of_a_decoder_is_packed(name, left):
    # Rows of a packed matrix cannot be read: where the head is the table too, it stays as it is.
    whole = load(str(zoo.checkpoint(name)), (0, zoo.LAYERS))._cut.model
    plain = [part for part, module in whole.named_modules() if type(module) is nn.Linear]
    assert plain == left
    last = stages(name)[-1]._cut.model
    assert not [part for part, module in last.named_modules() if type(module) is nn.Linear]
    assert sum(isinstance(module, PackedLinear) for module in whole.modules()) > 20


@pytest.mark.parametrize("name", ["llama_tied", "gpt2", "gemma2"])
def test_a_tied_matrix_is_in_memory_once(name):
    vocabulary = zoo.VOCABULARY
    for cut in ((0, zoo.LAYERS), CUTS[-1]):
        model = load(str(zoo.checkpoint(name)), cut)._cut.model
        held = [
            *{parameter.data_ptr(): parameter for parameter in model.parameters()}.values(),
            *(m.packed for m in model.modules() if isinstance(m, PackedLinear)),
        ]
        tables = [part for part in held if part.numel() >= vocabulary * 64]
        assert len(tables) == 1, f"layers {cut} of {name} hold {len(tables)} tables"


def test_nothing_is_packed_that_is_not_float32():
    model = load(str(zoo.checkpoint("llama")), (0, 1), dtype="bfloat16")._cut.model
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


def test_without_onednn_all_stays_as_it_is(monkeypatch):
    def fails(*_):
        raise NotImplementedError("mkldnn::_reorder_linear_weight is not there")

    monkeypatch.setattr(linear.PackedLinear, "_product", fails)
    linear.can_pack.cache_clear()
    try:
        model = nn.Sequential(nn.Linear(4, 4))
        hold(model, embeds=True)
        assert type(model[0]) is nn.Linear
    finally:
        linear.can_pack.cache_clear()


def test_a_layer_that_does_more_than_multiply_stays():
    class Scaled(nn.Linear):
        def forward(self, given):
            return 2 * super().forward(given)

    model = nn.Sequential(Scaled(4, 4), nn.Linear(4, 4))
    hold(model, embeds=True)
    assert [type(part) for part in model] == [Scaled, PackedLinear]
    hold(model, embeds=True, half=True)
    assert [type(part) for part in model] == [Scaled, PackedLinear]


@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_a_whole_model_differs_by_rounding_alone(name):
    given_inputs = inputs(name, padded=False)
    whole = load(str(zoo.checkpoint(name)), (0, zoo.LAYERS))
    with torch.inference_mode():
        expected = zoo.uncut(name)(**given_inputs)[0]
        made = whole._cut.run(given_inputs)[0]
    difference = ((made - expected).abs().max() / expected.abs().max()).item()
    assert difference <= 2e-6, f"{name} differs by {difference} of its largest value"
