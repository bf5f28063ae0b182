"""Options of a generation: where they come from, and every wrong one a sentence."""

from __future__ import annotations

import json

import pytest

from stageline.oip import grpc_service_pb2 as oip
from stageline_router.asking import read_options
from stageline_router.errors import Invalid
from stageline_router.options import GenerationOptions
from stageline_router.tensors import Input


def read(inputs: dict | None = None, sampling: object = None, **parameters) -> GenerationOptions:
    request = oip.ModelInferRequest()
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    for name, value in parameters.items():
        setattr(request.parameters[name], kinds[type(value)], value)
    given = {"text_input": Input("text_input", "BYTES", (1,), elements=(b"a",))}
    for name, value in (inputs or {}).items():
        given[name] = Input(name, "BOOL", (1,), bytes([value]))
    if sampling is not None:
        text = sampling if isinstance(sampling, str) else json.dumps(sampling)
        made = Input("sampling_parameters", "BYTES", (1,), elements=(text.encode(),))
        given["sampling_parameters"] = made
    return read_options(request, given)


def test_without_options_a_short_greedy_text_is_made():
    options = read()
    assert (options.max_tokens, options.temperature, options.seed) == (16, 0.0, None)
    assert not options.stream


@pytest.mark.parametrize(
    ("inputs", "sampling", "parameters", "expected"),
    [
        ({}, None, {"max_tokens": 5, "temperature": 0.5}, {"max_tokens": 5, "temperature": 0.5}),
        ({}, {"max_tokens": 7}, {"max_tokens": 5}, {"max_tokens": 7}),
        ({}, {"max_tokens": "7", "top_p": "0.5"}, {}, {"max_tokens": 7, "top_p": 0.5}),
        ({}, None, {"sampling_parameters": '{"top_k": 3}'}, {"top_k": 3}),
        ({"stream": True}, None, {"stream": False}, {"stream": True}),
        ({"streaming": True}, None, {}, {"stream": True}),
        ({"stream": True}, {"streaming": False}, {"streaming": False}, {"stream": True}),
        ({}, {"stop": "[INST]"}, {"stop": "x"}, {"stop": ("[INST]",)}),
        ({}, {"stop": "3"}, {}, {"stop": ("3",)}),
        ({"exclude_input_in_output": True}, None, {}, {"exclude_input_in_output": True}),
        ({}, {"stop": "end"}, {}, {"stop": ("end",)}),
        ({}, {"stop": ["a", "b"], "stop_token_ids": [3]}, {}, {"stop": ("a", "b")}),
        ({}, None, {"stop": '["a", "b"]', "stop_token_ids": "[3, 4]"}, {"stop_token_ids": (3, 4)}),
        ({}, None, {"triton_enable_empty_final_response": True, "priority": 3}, {"priority": 3}),
        ({}, {"priority": -1}, {"priority": 3}, {"priority": -1}),
        ({}, {"n": 3, "temperature": 1}, {}, {"n": 3}),
        ({}, {"min_p": 0.1, "min_tokens": 4}, {}, {"min_p": 0.1, "min_tokens": 4}),
        ({}, {"repetition_penalty": 1.1, "presence_penalty": -2}, {}, {"presence_penalty": -2.0}),
        ({}, {"frequency_penalty": "0.5"}, {}, {"frequency_penalty": 0.5}),
        ({}, {"logprobs": 0}, {}, {"logprobs": 0, "asked_logprobs": None}),
        ({"return_logprobs": True}, {"logprobs": 0}, {}, {"asked_logprobs": 1}),
        ({"return_logprobs": True}, {"logprobs": 20}, {}, {"asked_logprobs": 20}),
        ({"return_logprobs": True}, {}, {}, {"asked_logprobs": None}),
        ({"return_cumulative_logprob": True}, {}, {}, {"asked_logprobs": 0}),
    ],
)
def test_options_come_from_inputs_json_and_parameters(inputs, sampling, parameters, expected):
    options = read(inputs, sampling, **parameters)
    for name, value in expected.items():
        assert getattr(options, name) == value, f"{name} of {options}"


@pytest.mark.parametrize(
    ("sampling", "sentence"),
    [
        ({"max_tokens": 0}, "max_tokens is 0: input should be greater than or equal to 1"),
        ({"max_tokens": 2.5}, "max_tokens is 2.5: "),
        ({"max_tokens": True}, "max_tokens is True: it must be a number"),
        ({"max_tokens": None}, "max_tokens is None: "),
        ('{"temperature": NaN}', "temperature is nan: "),
        ('{"temperature": Infinity}', "temperature is inf: "),
        ({"temperature": -0.1}, "temperature is -0.1: "),
        ({"top_p": 0}, "top_p is 0: input should be greater than or equal to 0.000001"),
        ({"top_p": 1.5}, "top_p is 1.5: "),
        ({"top_k": -2}, "top_k is -2: "),
        ({"seed": -1}, "seed is -1: "),
        ({"stop": ""}, "stop is '': it must be a text or at most 16 texts, none empty"),
        ({"stop": ["a", ""]}, "stop is ['a', '']: it must be a text or"),
        ({"stop": "[1]"}, "stop is '[1]': it must be a text or"),
        ({"stop": {"a": 1}}, "stop is {'a': 1}: it must be a text or"),
        ({"stop_token_ids": [True]}, "stop_token_ids is [True]: it must be at most 1024 token ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids is [-1]: "),
        ({"stop_token_ids": [2**31]}, "stop_token_ids is [2147483648]: "),
        ({"stop_token_ids": [1.0]}, "stop_token_ids is [1.0]: "),
        ({"stop_token_ids": 7}, "stop_token_ids is 7: "),
        ({"stop_token_ids": list(range(1025))}, "it must be at most 1024 token ids"),
        ({"stop_token_ids": "[1"}, "stop_token_ids is no JSON"),
        ({"stop": ["a"] * 17}, "at most 16 texts"),
        ({"stop": [str(i) for i in range(10_000)]}, "at most 16 texts"),
        ({"stop": "a" * 1025}, "none of more than 1024 characters"),
        ({"n": 0}, "n is 0: input should be greater than or equal to 1"),
        ({"n": 17}, "n is 17: input should be less than or equal to 16"),
        ({"n": 2}, "n is 2 and temperature is 0: all 2 texts would be the same one"),
        ({"min_tokens": 17}, "min_tokens is 17, and max_tokens is 16"),
        ({"min_tokens": -1}, "min_tokens is -1: "),
        ({"min_p": 1.1}, "min_p is 1.1: "),
        ('{"min_p": NaN}', "min_p is nan: "),
        ({"presence_penalty": 2.5}, "presence_penalty is 2.5: "),
        ({"frequency_penalty": "much"}, "frequency_penalty is 'much': "),
        ({"repetition_penalty": 0}, "repetition_penalty is 0: "),
        ('{"repetition_penalty": -Infinity}', "repetition_penalty is -inf: "),
        ({"logprobs": 21}, "logprobs is 21: input should be less than or equal to 20"),
        ({"logprobs": True}, "logprobs is True: it must be a number"),
        ({"priority": "soon"}, "priority is 'soon': "),
        ({"max_token": 3}, "no option 'max_token': did you mean max_tokens?"),
        ({"presence_penalties": 1}, "did you mean presence_penalty?"),
        ({"é" * 10_000: 1}, "no option 'ééé"),
        ({"stop": 3}, "stop is 3: "),
        ({"ignore_eos": "yes"}, "ignore_eos is 'yes': it must be true or false"),
        ({"ignore_eos": 1}, "ignore_eos is 1: it must be true or false"),
        ({"temprature": 1}, "no option 'temprature': did you mean temperature?"),
        ({"beams": 1}, "no option 'beams': it has max_tokens"),
        ("{", "sampling_parameters is no JSON: "),
        ("[1]", "sampling_parameters must be a JSON object, not [1]"),
        ("[" * 100_000, "sampling_parameters is no JSON: "),
    ],
)
def test_a_wrong_option_is_a_sentence(sampling, sentence):
    with pytest.raises(Invalid) as refused:
        read(sampling=sampling)
    assert sentence in str(refused.value)


def test_a_stream_cannot_repeat_the_prompt():
    with pytest.raises(Invalid, match="never repeats the prompt"):
        read({"stream": True, "exclude_input_in_output": False})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("top_k", "no input 'top_k': it has text_input"), ("image", "image is not served")],
)
def test_an_input_that_is_no_flag_is_refused_by_name(name, sentence):
    with pytest.raises(Invalid, match=sentence):
        read({name: True})


def test_an_output_that_is_named_is_asked_for():
    request = oip.ModelInferRequest(
        outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name=name)
                 for name in ("text_output", "finish_reason", "logprobs")]
    )  # fmt: skip
    options = read_options(request, {})
    assert (options.return_finish_reason, options.return_logprobs) == (True, True)
    assert not options.return_num_output_tokens


def test_an_output_that_there_is_not_is_refused_by_name():
    output = oip.ModelInferRequest.InferRequestedOutputTensor(name="logits")
    with pytest.raises(Invalid, match="no output logits: it has text_output"):
        read_options(oip.ModelInferRequest(outputs=[output]), {})
