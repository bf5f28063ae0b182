"""Matrices in float16 for a CPU that computes in float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stageline_api.plan import plan
from stageline_api.plan_request import PlanRequest
from stageline_worker.model import StageError, load
from stageline_worker.model.linear import HalfLinear, is_linear
from stageline_worker.model.profile import profile
from support import zoo
from support.stages import CUTS, inputs

VARIED = ["bert_classifier", "gemma3", "gpt2", "llama", "llama_tied", "mixtral", "opt_projected",
          "qwen2", "vit"]  # fmt: skip


def halves(name, cut=(0, zoo.LAYERS)):
    return load(str(zoo.checkpoint(name)), cut, dtype="float32", weight_dtype="float16")


@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_a_model_differs_by_the_rounding_of_its_weights_alone(name):
    given = inputs(name, padded=False)
    rounded = _with_rounded_matrices(name)
    with torch.inference_mode():
        expected, made = rounded(**given)[0], halves(name)._cut.run(given)[0]
        exact = zoo.uncut(name)(**given)[0]
    assert not torch.equal(expected, exact), "this test cannot see rounding"
    difference = ((made - expected).abs().max() / expected.abs().max()).item()
    assert difference <= 2e-6, f"{name} differs by {difference} of its largest value"


def _with_rounded_matrices(name):
    """The uncut model whose linear layers, and what shares their weights, were in float16 once."""
    import copy

    model = copy.deepcopy(zoo.uncut(name))
    scaled = {
        id(part.weight) for part in model.modules()
        if isinstance(part, nn.Embedding) and type(part) is not nn.Embedding
    }  # fmt: skip
    with torch.no_grad():
        for part in model.modules():
            if is_linear(part) and id(part.weight) not in scaled:
                part.weight.copy_(part.weight.half().float())
    return model


@pytest.mark.parametrize("name", VARIED)
def test_planned_weights_are_those_that_the_stages_hold(name):
    uri = f"file://{zoo.checkpoint(name)}"
    for cuts in (CUTS, ((0, zoo.LAYERS),)):
        partition = tuple(hi - lo for lo, hi in cuts)
        request = PlanRequest(
            name, uri, dtype="float32", weight_dtype="float16", partition=partition
        )
        planned = [stage.weight_bytes for stage in plan(profile(uri), request).stages]
        assert planned == [_held(halves(name, cut)) for cut in cuts], f"{name} in {cuts}"


def _held(stage):
    """Bytes of parameters and of matrices in float16, each once."""
    model = stage._cut.model
    held = {id(part): part.nbytes for part in model.parameters()}
    for part in model.modules():
        if isinstance(part, HalfLinear):
            weight, bias = torch.ops.quantized.linear_unpack_fp16(part._packed)
            held[id(part)] = weight.numel() * 2 + (0 if bias is None else bias.nbytes)
        elif type(part).__name__ == "HalfEmbedding":
            held[id(part)] = part._weight.nbytes
    return sum(held.values())


def test_it_is_refused_where_there_is_nothing_to_halve():
    with pytest.raises(StageError, match="this stage computes in bfloat16 on cpu"):
        load(str(zoo.checkpoint("llama")), (0, 1), dtype="bfloat16", weight_dtype="float16")
    with pytest.raises(StageError, match="weight dtype int4 is unknown"):
        load(str(zoo.checkpoint("llama")), (0, 1), weight_dtype="int4")


def test_a_processor_without_kernels_for_it_says_so(monkeypatch):
    monkeypatch.setattr("stageline_worker.model.loading.can_halve", lambda: False)
    with pytest.raises(StageError, match="no kernels for weights in float16"):
        halves("llama", (0, 1))


def test_weights_beyond_float16_are_refused(tmp_path):
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight[1, 2] = 70000.0
    with pytest.raises(StageError, match="70000"):
        HalfLinear(model.weight, None)
