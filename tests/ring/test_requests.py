"""What a router asks is checked again before it may enter the ring."""

import math

import pytest
import torch

from stageline_wire import Frame, Kind
from stageline_worker.leader.requests import BadRequest, generation, inference, request_id
from stageline_worker.microbatch import ModelInfo, Sampling, TensorSpec
from stageline_worker.tensors import to_view
from support.toy import EOS, MAX_LEN, ToyStage

TEXT = ToyStage(0, 3).info
VISION = ModelInfo(
    "ViTModel", False, 6, 0, 0, (), 0, False,
    (TensorSpec("pixel_values", "FP32", (-1, 3, 4, 4)),),
    (TensorSpec("logits", "FP32", (-1, 3)),),
)  # fmt: skip


def infer(meta=None, **tensors):
    views = tuple(to_view(name, tensor) for name, tensor in tensors.items())
    return Frame(Kind.INFER, meta={"id": 1, **(meta or {})}, tensors=views)


def generate(ids, meta=None, dtype=torch.int64):
    view = to_view("input_ids", torch.tensor(ids, dtype=dtype))
    return Frame(Kind.GENERATE, meta={"id": 1, **(meta or {})}, tensors=(view,))


def ids(*shape, value=1, dtype=torch.int64):
    return torch.full(shape, value, dtype=dtype)


def test_a_good_inference_is_a_microbatch():
    microbatch = inference(infer({"outputs": ["last"]}, input_ids=ids(2, 3)), TEXT)
    assert microbatch.tensors["input_ids"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert (microbatch.segments, microbatch.outputs) == ((), ("last",))
    image = inference(infer(pixel_values=torch.zeros(2, 3, 4, 4)), VISION)
    assert image.outputs is None


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (infer(), "input input_ids is missing"),
        (infer(input_ids=ids(1, 2), x=ids(1)), "no input x; it has input_ids, attention_mask"),
        (infer(input_ids=ids(1, 2, dtype=torch.int32)), "input_ids is INT64, not INT32"),
        (infer(input_ids=ids(3)), r"has shape \[3\]; it must be \[-1, -1\]"),
        (infer(input_ids=ids(0, 3)), "none empty"),
        (infer(input_ids=ids(2, 0)), "none empty"),
        (infer(input_ids=ids(1, MAX_LEN + 1)), f"{MAX_LEN + 1} tokens are more than"),
        (infer(input_ids=ids(1, 2), attention_mask=ids(1, 3)),
         r"attention_mask has shape \[1, 3\], input_ids has \[1, 2\]"),
        (infer(input_ids=ids(1, 2, value=97)), "input input_ids has 97; it must be 0 to 96"),
        (infer(input_ids=ids(1, 2, value=-1)), "input input_ids has -1; it must be 0 to 96"),
        (infer({"outputs": ["x"]}, input_ids=ids(1, 2)), "no output x; it has sums, last"),
        (infer({"outputs": []}, input_ids=ids(1, 2)), "outputs must be a list of names"),
        (infer({"outputs": "sums"}, input_ids=ids(1, 2)), "outputs must be a list of names"),
        (infer({"outputs": [["sums"]]}, input_ids=ids(1, 2)), "no output"),
    ],
)  # fmt: skip
def test_a_bad_inference_is_refused_with_a_sentence(frame, sentence):
    with pytest.raises(BadRequest, match=sentence):
        inference(frame, TEXT)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(BadRequest, match=r"has shape \[2, 3, 5, 4\]; it must be \[-1, 3, 4, 4\]"):
        inference(infer(pixel_values=torch.zeros(2, 3, 5, 4)), VISION)


def test_a_good_prompt_is_a_generation():
    meta = {"max_tokens": 5, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 11,
            "stop_token_ids": [4]}  # fmt: skip
    work = generation(generate([1, 2], meta), TEXT, key=9)
    assert (work.key, list(work.tokens), work.max_tokens) == (9, [1, 2], 5)
    assert (work.min_tokens, work.output, work.priority) == (0, 0, 0)
    assert work.stop == {4, EOS}
    assert work.sampling == Sampling(11, 0, temperature=0.5, top_k=3, top_p=0.9)
    assert generation(generate([1], {"ignore_eos": True}), TEXT, 1).stop == frozenset()


def test_a_prompt_may_ask_for_everything_at_once_and_bring_what_was_made_elsewhere():
    meta = {
        "max_tokens": 5, "min_tokens": 2, "output": 2, "priority": -3, "min_p": 0.1,
        "repetition_penalty": 1.5, "presence_penalty": -2, "frequency_penalty": 2, "logprobs": 20,
    }  # fmt: skip
    work = generation(generate([1, 2, 3], meta), TEXT, key=9)
    assert (work.min_tokens, work.output, work.priority) == (2, 2, -3)
    assert work.sampling == Sampling(
        0, 0, min_p=0.1, repetition_penalty=1.5, presence_penalty=-2.0, frequency_penalty=2.0,
        logprobs=20,
    )  # fmt: skip
    none = generation(generate([1], {"logprobs": None, "priority": None}), TEXT, 1)
    assert (none.sampling.logprobs, none.priority) == (None, 0)
    assert generation(generate([1], {"logprobs": 0}), TEXT, 1).sampling.logprobs == 0


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (generate([]), "the prompt is empty"),
        (generate([[1]]), "one tensor, input_ids, INT64"),
        (generate([1], dtype=torch.int32), "one tensor, input_ids, INT64"),
        (infer(x=ids(1)), "one tensor, input_ids, INT64"),
        (infer(), "one tensor, input_ids, INT64"),
        (generate([1] * MAX_LEN), "leaves no room for an answer"),
        (generate([97]), "input input_ids has 97"),
        (generate([-1]), "input input_ids has -1"),
        (generate([1], {"max_tokens": 0}), "max_tokens is 0; it must be an integer from 1"),
        (generate([1], {"max_tokens": 1.5}), "max_tokens is 1.5"),
        (generate([1], {"max_tokens": True}), "max_tokens is True"),
        (generate([1], {"temperature": math.nan}), "temperature is nan; it must be a number"),
        (generate([1], {"temperature": math.inf}), "temperature is inf"),
        (generate([1], {"temperature": -1}), "temperature is -1"),
        (generate([1], {"temperature": "hot"}), "temperature is 'hot'"),
        (generate([1], {"top_p": 0}), "top_p is 0"),
        (generate([1], {"top_p": 1.1}), "top_p is 1.1"),
        (generate([1], {"top_k": -1}), "top_k is -1"),
        (generate([1], {"seed": 2**63}), "seed is 9223372036854775808"),
        (generate([1], {"seed": 10**400}), "seed is"),
        (generate([1], {"stop_token_ids": 3}), "stop_token_ids must be a list"),
        (generate([1], {"stop_token_ids": ["a"]}), "stop_token_ids must be a list"),
        (generate([1], {"ignore_eos": "yes"}), "ignore_eos must be true or false"),
        (generate([1], {"stop_token_ids": [97]}), "stop_token_ids has 97; it must be 0 to 96"),
        (generate([1], {"stop_token_ids": [1] * 1025}), "stop_token_ids has 1025 tokens"),
        (generate([1], {"max_tokens": 3, "min_tokens": 4}), "min_tokens is 4; .* from 0 to 3"),
        (generate([1, 2], {"output": 2}), "output is 2; it must be an integer from 0 to 1"),
        (generate([1, 2, 3], {"max_tokens": 2, "output": 2}), "output is 2; .* from 0 to 1"),
        (generate([1], {"min_p": 1.5}), "min_p is 1.5"),
        (generate([1], {"repetition_penalty": 0}), "repetition_penalty is 0"),
        (generate([1], {"presence_penalty": -2.1}), "presence_penalty is -2.1"),
        (generate([1], {"frequency_penalty": math.nan}), "frequency_penalty is nan"),
        (generate([1], {"logprobs": 21}), "logprobs is 21; it must be an integer from 0 to 20"),
        (generate([1], {"priority": 0.5}), "priority is 0.5"),
    ],
)
def test_a_bad_prompt_is_refused_with_a_sentence(frame, sentence):
    with pytest.raises(BadRequest, match=sentence):
        generation(frame, TEXT, key=1)


def test_a_model_that_does_not_generate_says_so():
    with pytest.raises(BadRequest, match="ViTModel does not generate text"):
        generation(generate([1]), VISION, key=1)


@pytest.mark.parametrize("value", [None, True, 1.5, [1], {}])
def test_a_request_without_a_usable_id_is_refused(value):
    with pytest.raises(BadRequest, match="needs an id"):
        request_id(Frame(Kind.INFER, meta={"id": value}))
