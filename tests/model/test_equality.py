"""Every architecture, cut into three uneven stages, equals the uncut model to the last bit."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from stageline_worker.microbatch import Microbatch
from stageline_worker.model.cache import StageCache
from support import zoo
from support.stages import TOKENS, generate, greedy, inputs, stages, through, tokens, uncut_on_cpu

every_model = pytest.mark.parametrize("name", sorted(zoo.ZOO))
every_decoder = pytest.mark.parametrize("name", sorted(zoo.DECODERS))
# Prefill in two chunks, then decode one token, then three at once.
CHUNKS = ((0, 8), (8, 16), (16, 17), (17, TOKENS))


@every_model
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "without a mask"])
def test_a_forward_pass_equals_the_uncut_model(name, padded):
    given = inputs(name, padded=padded)
    with torch.inference_mode():
        expected = uncut_on_cpu(name)(**given)
    made = through(stages(name), Microbatch(given))
    made.pop("embedding", None)
    assert made, f"{name} gave no output"
    for output, tensor in made.items():
        difference = (tensor - expected[output]).abs().max().item()
        assert difference == 0.0, f"{output} of {name} differs by {difference}"
        assert tensor.is_contiguous(), f"{output} of {name} is not contiguous"


def test_token_types_reach_the_embedding():
    given = inputs("bert", padded=True)
    given["token_type_ids"] = (torch.arange(TOKENS) > 9).long().repeat(2, 1)
    with torch.inference_mode():
        expected = uncut_on_cpu("bert")(**given).last_hidden_state
        without = uncut_on_cpu("bert")(
            given["input_ids"], given["attention_mask"]
        ).last_hidden_state
    made = through(stages("bert"), Microbatch(given))["last_hidden_state"]
    assert torch.equal(made, expected), "token_type_ids were lost on the way"
    assert not torch.equal(expected, without), "this test cannot see token types"


def _logits(run, caches, mask, positions):
    """Logits of the tokens that are not padding, for the chunks one after another."""
    ids, parts = tokens(2, TOKENS), []
    with torch.inference_mode():
        for begin, end in CHUNKS:
            options = {"attention_mask": mask[:, :end], "position_ids": positions[:, begin:end]}
            parts.append(run(ids[:, begin:end], caches, options))
    return torch.cat(parts, dim=1)[mask.bool()]


def _run_uncut(name):
    def run(ids, cache, options):
        return uncut_on_cpu(name)(ids, past_key_values=cache, use_cache=True, **options).logits

    return run


def _run_stages(name):
    def run(ids, caches, options):
        entering = {"input_ids": ids}
        for stage, cache in zip(stages(name), caches, strict=True):
            output = stage._cut.run(entering, cache=cache, use_cache=True, **options)
            cache.advance(ids.shape[1])
            entering = {"hidden_states": output}
        return output.logits

    return run


def _masks(left_padded):
    mask = torch.ones(2, TOKENS, dtype=torch.int64)
    if left_padded:
        mask[1, :5] = 0
    return mask, (mask.cumsum(1) - 1).clamp(min=0)


@every_decoder
@pytest.mark.parametrize("left_padded", [True, False], ids=["left padded", "unpadded"])
def test_chunked_prefill_and_cached_decode_equal_the_uncut_model(name, left_padded):
    mask, positions = _masks(left_padded)
    uncut_cache = DynamicCache(config=zoo.uncut(name).config)
    expected = _logits(_run_uncut(name), uncut_cache, mask, positions)
    caches = [StageCache(stage._cut.model.config, *stage.layers) for stage in stages(name)]
    made = _logits(_run_stages(name), caches, mask, positions)
    difference = (made - expected).abs().max().item()
    assert difference == 0.0, f"{name} differs by {difference}"


class _PlainCache(DynamicCache):
    """The mistake that these tests must see: a cache that does not count for other stages."""

    def advance(self, tokens):
        pass


@every_decoder
def test_a_plain_cache_on_every_stage_would_be_seen(name):
    mask, positions = _masks(left_padded=True)
    config = zoo.uncut(name).config
    expected = _logits(_run_uncut(name), DynamicCache(config=config), mask, positions)
    caches = [_PlainCache(config=config) for _ in stages(name)]
    try:
        made = _logits(_run_stages(name), caches, mask, positions)
    except (RuntimeError, ValueError):
        return
    assert not torch.equal(made, expected), f"{name}: a plain cache gives the same logits"


@every_decoder
def test_generated_tokens_are_those_of_the_uncut_model(name):
    prompt = tokens(1, 11, seed=3)[0]
    expected = greedy(zoo.uncut(name), prompt, 8)
    assert generate(stages(name), prompt, 8) == expected, f"{name}, the prompt in one piece"
    assert generate(stages(name), prompt, 8, slot=2, chunk=4) == expected, f"{name}, in pieces"


@pytest.mark.parametrize("name", ["llama", "deepseek_v3", "bert", "vit_classifier", "gpt2"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_converted_dtype_equals_the_uncut_model_in_that_dtype(name, dtype):
    import transformers

    from stageline_worker.model import load
    from support.stages import CUTS

    cls = getattr(transformers, zoo.ZOO[name][0])
    whole = cls.from_pretrained(zoo.checkpoint(name), dtype=getattr(torch, dtype)).eval()
    given = inputs(name, padded=True)
    with torch.inference_mode():
        expected = whole(**given)
    chain = [load(str(zoo.checkpoint(name)), cut, dtype=dtype) for cut in CUTS]
    assert {stage.dtype for stage in chain} == {dtype}
    kept = {part: tensor.dtype for part, tensor in whole.state_dict().items()}
    for stage in chain:
        # Some parts stay in float32, whatever the model is loaded in.
        made = {part: tensor.dtype for part, tensor in stage._cut.model.state_dict().items()}
        assert made == {part: kept[part] for part in made}
    for output, tensor in through(chain, Microbatch(given, outputs=None)).items():
        if output != "embedding":
            assert tensor.dtype == getattr(torch, dtype), f"{output} of {name} is {tensor.dtype}"
            assert torch.equal(tensor, expected[output]), f"{output} of {name} in {dtype} differs"
