"""A stage as the ring sees it: what it says of the model, and how it keeps sequences apart."""

from __future__ import annotations

import pytest
import torch

from stageline_worker.microbatch import Microbatch, ModelInfo, Sampling, Segment, TensorSpec
from stageline_worker.model import StageError, load
from support import zoo
from support.stages import generate, greedy, inputs, stages, through, tokens

every_model = pytest.mark.parametrize("name", sorted(zoo.ZOO))
HIDDEN = TensorSpec("last_hidden_state", "FP32", (-1, -1, 64))
POOLED = TensorSpec("pooler_output", "FP32", (-1, 64))
EMBEDDING = TensorSpec("embedding", "FP32", (-1, 64))
IDS = TensorSpec("input_ids", "INT64", (-1, -1), limit=zoo.VOCABULARY)
MASK = TensorSpec("attention_mask", "INT64", (-1, -1), optional=True, limit=2)
TYPES = TensorSpec("token_type_ids", "INT64", (-1, -1), optional=True, limit=2)
PIXELS = TensorSpec("pixel_values", "FP32", (-1, 3, 32, 32))


def logits(*shape):
    return TensorSpec("logits", "FP32", (-1, *shape))


@pytest.mark.parametrize(
    ("name", "given", "made"),
    [
        ("bert", (IDS, MASK, TYPES), (HIDDEN, POOLED, EMBEDDING)),
        ("roberta", (IDS, MASK), (HIDDEN, POOLED, EMBEDDING)),
        ("bert_classifier", (IDS, MASK, TYPES), (logits(3),)),
        ("bert_tagger", (IDS, MASK, TYPES), (logits(-1, 3),)),
        ("bert_masked", (IDS, MASK, TYPES), (logits(-1, 320),)),
        ("llama", (IDS, MASK), (logits(-1, 320),)),
        ("gpt2", (IDS, MASK), (logits(-1, 320),)),
        (
            "vit",
            (PIXELS,),
            (TensorSpec("last_hidden_state", "FP32", (-1, 17, 64)), POOLED),
        ),
        ("vit_classifier", (PIXELS,), (logits(3),)),
    ],
)
def test_inputs_and_outputs_are_the_models_own(name, given, made):
    for stage in stages(name):
        assert stage.info.inputs == given
        assert stage.info.outputs == made


@every_model
def test_what_a_model_says_is_what_it_gives(name):
    info = stages(name)[0].info
    result = through(stages(name), Microbatch(inputs(name, padded=True)))
    assert list(result) == [spec.name for spec in info.outputs]
    for spec in info.outputs:
        shape = result[spec.name].shape
        assert len(shape) == len(spec.shape), f"{name} {spec}: {shape}"
        assert all(size in (-1, real) for size, real in zip(spec.shape, shape, strict=True))


def test_the_rest_of_the_model_info():
    info = stages("llama")[1].info
    assert info == ModelInfo(
        "LlamaForCausalLM", True, 6, 320, 256, (2,), 0, False, info.inputs, info.outputs
    )
    image = stages("vit")[0].info
    assert (image.vocab_size, image.max_model_len, image.embeds_text) == (0, 0, False)
    assert stages("bert")[0].info.embeds_text
    assert not stages("bert_classifier")[0].info.embeds_text
    assert stages("roberta")[0].info.pad_token_id == 1
    assert stages("roberta")[0].info.max_model_len == 254


def test_a_shorter_length_can_be_asked_for_a_longer_one_not():
    uri = str(zoo.checkpoint("llama"))
    assert load(uri, (0, 1), max_model_len=100).info.max_model_len == 100
    assert load(uri, (0, 1), max_model_len=100_000).info.max_model_len == 256


def test_end_tokens_of_the_generation_config_count(tmp_path):
    import shutil

    folder = shutil.copytree(zoo.checkpoint("llama"), tmp_path / "llama")
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 17]}')
    assert load(str(folder), (5, 6)).info.eos_token_ids == (2, 17)


def test_reports_of_dtype_and_device():
    stage = load(str(zoo.checkpoint("llama")), (5, 6), dtype="bfloat16", device="cpu")
    assert (stage.device, stage.dtype) == ("cpu", "bfloat16")
    assert stage.info.outputs[0].datatype == "BF16"
    assert (stage.first, stage.last) == (False, True)


@every_model
def test_the_canary_goes_round_and_uses_no_slot(name):
    chain = stages(name)
    canary = chain[0].canary()
    assert not canary.segments
    result = through(chain, canary)
    assert list(result) == [chain[0].info.outputs[0].name]
    assert torch.isfinite(next(iter(result.values()))).all()


def test_only_outputs_that_were_asked_for_are_made():
    given = inputs("bert", padded=True)
    made = through(stages("bert"), Microbatch(given, outputs=("pooler_output",)))
    assert list(made) == ["pooler_output"]


def test_a_stage_in_the_middle_passes_on_what_later_stages_need():
    given = inputs("bert", padded=True)
    middle = stages("bert")[1].forward(stages("bert")[0].forward(Microbatch(given, outputs=("x",))))
    assert set(middle.tensors) == {"hidden_states", "attention_mask"}
    assert middle.outputs == ("x",)
    without = stages("bert")[0].forward(Microbatch({"input_ids": given["input_ids"]}))
    assert set(without.tensors) == {"hidden_states"}, "a mask was invented"


@pytest.mark.parametrize("name", ["bert", "llama", "vit"])
def test_one_stage_with_all_layers_is_the_model(name):
    given = inputs(name, padded=True)
    whole = load(str(zoo.checkpoint(name)), (0, zoo.LAYERS))
    made = whole.forward(Microbatch(given)).tensors
    expected = through(stages(name), Microbatch(given))
    assert all(torch.equal(made[output], expected[output]) for output in expected)


def _packed(name, steps):
    """Take several sequences through the ring in common microbatches, as `steps` say: for each
    microbatch the (slot, tokens) pairs. Gives what was drawn for each slot, in order."""
    drawn: dict[int, list[int]] = {}
    held: dict[int, int] = {}
    for step in steps:
        segments = []
        for slot, ids in step:
            start = held.get(slot, 0)
            held[slot] = start + len(ids)
            segments.append(Segment(slot, start, len(ids), Sampling(0, held[slot])))
        packed = Microbatch({"input_ids": torch.cat([ids for _, ids in step])}, tuple(segments))
        result = through(stages(name), packed)["tokens"].tolist()
        for (slot, _), token in zip(step, result, strict=True):
            drawn.setdefault(slot, []).append(token)
    return drawn


@pytest.mark.parametrize("name", ["llama", "gemma3", "deepseek_v3"])
def test_sequences_in_one_microbatch_do_not_see_each_other(name):
    prompts = {0: tokens(1, 9, seed=1)[0], 3: tokens(1, 5, seed=2)[0], 1: tokens(1, 12, seed=3)[0]}
    expected = {slot: greedy(zoo.uncut(name), ids, 4) for slot, ids in prompts.items()}
    for stage in stages(name):
        stage.reset()
    decodes = [
        [(slot, torch.tensor([expected[slot][count]])) for slot in (1, 0, 3)] for count in range(3)
    ]
    assert _packed(name, [list(prompts.items()), *decodes]) == expected


def test_a_new_sequence_takes_a_slot_over():
    first, second = tokens(2, 10, seed=4)
    generate(stages("llama"), first, 3, slot=5)
    again = generate(stages("llama"), second, 3, slot=5)
    assert again == greedy(zoo.uncut("llama"), second, 3)


def test_many_sequences_together_may_have_more_tokens_than_one_may():
    segments = (Segment(0, 0, 200), Segment(1, 0, 200))
    made = stages("llama")[0].forward(Microbatch({"input_ids": tokens(1, 400)[0]}, segments))
    assert made.tensors["hidden_states"].shape[-2] == 400


def test_segments_without_sampling_draw_nothing():
    segments = (Segment(0, 0, 3), Segment(1, 0, 2, Sampling(0, 2)))
    packed = Microbatch({"input_ids": tokens(1, 5)[0]}, segments)
    assert through(stages("llama"), packed)["tokens"].shape == (1,)
    quiet = Microbatch({"input_ids": tokens(1, 5)[0]}, (Segment(0, 0, 5),))
    assert through(stages("llama"), quiet)["tokens"].shape == (0,)


def test_sampling_by_seed_repeats_itself():
    prompt = tokens(1, 6)[0]

    def drawn(seed, slot):
        sampling = Sampling(seed, 6, temperature=5.0)
        packed = Microbatch({"input_ids": prompt}, (Segment(slot, 0, 6, sampling),))
        return int(through(stages("llama"), packed)["tokens"])

    assert [drawn(seed, 0) for seed in range(20)] == [drawn(seed, 3) for seed in range(20)]
    assert len({drawn(seed, 0) for seed in range(20)}) > 5


def test_reset_forgets_every_sequence():
    stage = load(str(zoo.checkpoint("llama")), (0, 2))
    stage.forward(Microbatch({"input_ids": tokens(1, 4)[0]}, (Segment(0, 0, 4),)))
    stage.reset()
    with pytest.raises(StageError, match="slot 0 holds 0 tokens, its segment starts at 4"):
        stage.forward(Microbatch({"input_ids": tokens(1, 1)[0]}, (Segment(0, 4, 1),)))


@pytest.mark.parametrize(
    ("name", "microbatch", "sentence"),
    [
        ("llama", Microbatch({"input_ids": torch.tensor([[3, 320]])}), "outside of 0 to 319"),
        ("llama", Microbatch({"input_ids": torch.tensor([[-1]])}), "outside of 0 to 319"),
        (
            "bert",
            Microbatch({"input_ids": torch.tensor([[3]]), "token_type_ids": torch.tensor([[2]])}),
            "token_type_ids has a number outside of 0 to 1",
        ),
        (
            "llama",
            Microbatch({"input_ids": torch.tensor([3, 4])}, (Segment(0, 0, 3),)),
            "2 tokens came for segments of 3",
        ),
        ("llama", Microbatch({"input_ids": torch.tensor([3])}, (Segment(16, 0, 1),)), "has 16"),
        ("llama", Microbatch({"input_ids": torch.tensor([3])}, (Segment(-1, 0, 1),)), "slot -1"),
        ("llama", Microbatch({"input_ids": torch.tensor([3])}, (Segment(9, 7, 1),)), "starts at 7"),
        ("bert", Microbatch({"input_ids": torch.tensor([3])}, (Segment(0, 0, 1),)), "generate"),
        (
            "llama",
            Microbatch({"input_ids": torch.tensor([3])}, (Segment(0, 256, 1),)),
            "257 tokens are more than the 256",
        ),
        ("gpt2", Microbatch({"input_ids": tokens(1, 257)}), "257 tokens are more than the 256"),
    ],
)
def test_a_microbatch_that_does_not_fit_is_refused_and_the_next_one_answered(
    name, microbatch, sentence
):
    stage = stages(name)[0]
    with pytest.raises(StageError, match=sentence):
        stage.forward(microbatch)
    assert "hidden_states" in stage.forward(stage.canary()).tensors
