"""Options of a generation: where they come from, and every wrong one a sentence."""

from __future__ import annotations

import json

import pytest

from stageline.oip import grpc_service_pb2 as oip
from stageline_router.errors import Invalid
from stageline_router.asking import read_options
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
        ({"stream": True}, None, {"stream": False}, {"stream": True, "exclude_input_in_output": None}),
        ({"streaming": True}, None, {}, {"stream": True}),
        ({"stream": True}, {"streaming": False}, {"streaming": False}, {"stream": True}),
        ({}, {"stop": "[INST]"}, {"stop": "x"}, {"stop": ("[INST]",)}),
        ({}, {"stop": "3"}, {}, {"stop": ("3",)}),
        ({"exclude_input_in_output": True}, None, {}, {"exclude_input_in_output": True}),
        ({}, {"stop": "end"}, {}, {"stop": ("end",)}),
        ({}, {"stop": ["a", "b"], "stop_token_ids": [3]}, {}, {"stop": ("a", "b")}),
        ({}, None, {"stop": '["a", "b"]', "stop_token_ids": "[3, 4]"}, {"stop_token_ids": (3, 4)}),
        ({}, None, {"triton_enable_empty_final_response": True, "priority": 3}, {"max_tokens": 16}),
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
