"""`stageline infer` against a small server of the protocol."""

import json
import struct

import pytest
from typer.testing import CliRunner

from stageline_cli.failure import Failure
from stageline_cli.main import app
from support.oip_server import FOREVER, Oip, Tensor, float_response, serving, text_response

TOKENS = (Tensor(name="input_ids", datatype="INT64", shape=[-1, -1]),)
TEXT = (Tensor(name="text_input", datatype="BYTES", shape=[-1]), *TOKENS)


def infer(servicer, *arguments):
    with serving(servicer) as address:
        result = CliRunner().invoke(app, ["infer", "--address", address, *arguments])
    if isinstance(result.exception, Failure):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def ones(request):
    return float_response("out", [2, 3], [1, 2, 3, 4, 5, 6.5])


def test_shapes_and_values_are_printed():
    server = Oip(inputs=TOKENS, answer=ones)
    assert infer(server, "--input", "input_ids=[[1, 2], [3, 4]]").splitlines() == [
        "out  FP32 [2, 3]",
        "           1          2          3",
        "           4          5        6.5",
    ]
    (request,) = server.requests
    assert request.inputs[0].datatype == "INT64"
    assert list(request.inputs[0].shape) == [2, 2]
    assert request.raw_input_contents[0] == struct.pack("<4q", 1, 2, 3, 4)


def test_long_tensors_are_shortened():
    server = Oip(
        inputs=TOKENS, answer=lambda request: float_response("out", [20, 100], range(2000))
    )
    lines = infer(server, "--input", "input_ids=[[1]]").splitlines()
    assert lines[1].split() == ["0", "1", "2", "3", "4", "…", "98", "99"]
    assert lines[-1] == "  … 12 more rows (--json prints all)"
    assert len(lines) == 10


def test_json_has_every_value():
    document = json.loads(
        infer(Oip(inputs=TOKENS, answer=ones), "--json", "--input", "input_ids=[[1]]")
    )
    assert document == {
        "model_name": "m",
        "outputs": [
            {"name": "out", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6.5]}
        ],
    }


def test_typed_contents_are_read_too():
    def typed(request):
        return float_response("out", [2], [1, 2.5], raw=False)

    output = infer(Oip(inputs=TOKENS, answer=typed), "--input", "input_ids=[[1]]")
    assert output.splitlines()[1].split() == ["1", "2.5"]


@pytest.mark.parametrize(("shape", "expected"), [([-1], [2]), ([-1, 1], [2, 1])])
def test_texts_go_into_the_text_input(shape, expected):
    inputs = (Tensor(name="words", datatype="BYTES", shape=shape), *TOKENS)
    server = Oip(inputs=inputs, answer=lambda request: text_response(request, "ä", "b"))
    assert infer(server, "--text", "A cat", "--text", "ä dog").splitlines()[1] == "  ä b"
    (request,) = server.requests
    assert request.inputs[0].name == "words"
    assert list(request.inputs[0].shape) == expected
    assert request.raw_input_contents[0] == b"\x05\0\0\0A cat\x06\0\0\0\xc3\xa4 dog"


def test_wanted_outputs_are_asked_for():
    server = Oip(inputs=TOKENS, answer=ones)
    infer(server, "--input", "input_ids=[[1]]", "--output", "a", "--output", "b")
    assert [output.name for output in server.requests[0].outputs] == ["a", "b"]


@pytest.mark.parametrize(
    ("server", "arguments", "sentence"),
    [
        ({"answer": ValueError("row 3 is too long")}, [], "row 3 is too long"),
        ({"models": ("a", "b")}, [], "the server has the models a, b: name one with --model"),
        ({"models": ()}, [], "the server has no model: name one with --model"),
        ({"models": None}, [], "the server does not list its models: name one, --model"),
        ({}, ["--model", "other"], "there is no model other"),
        ({}, ["--input", "wrong=[1]"], "the model has no input wrong: it takes input_ids"),
        ({}, ["--input", "input_ids=[1"], "the value of input_ids is not JSON"),
        ({}, ["--text", "a"], "the model takes no text, only input_ids: use --input"),
        ({"answer": FOREVER}, ["--timeout", "0.2"], "no answer within 0.2 s"),
        ({"answer": lambda request: float_response("o", [9], [1])}, [], "o came with 4 bytes"),
    ],
)
def test_failures_are_sentences(server, arguments, sentence):
    servicer = Oip(**{"inputs": TOKENS, "answer": ones, **server})
    with pytest.raises(Failure) as caught:
        infer(servicer, "--input", "input_ids=[[1]]", *arguments)
    assert sentence in str(caught.value)


def test_every_input_of_a_server_without_metadata_is_sent():
    server = Oip(answer=ones)
    infer(server, "--input", "a=[1.5]", "--text", "b")
    assert [(i.name, i.datatype) for i in server.requests[0].inputs] == [
        ("text_input", "BYTES"),
        ("a", "FP32"),
    ]


def test_no_server_is_a_sentence():
    result = CliRunner().invoke(app, ["infer", "--address", "127.0.0.1:1", "--text", "a"])
    assert str(result.exception).startswith(
        "nothing answers at 127.0.0.1:1: start a model with `stageline up FILE`"
    )


@pytest.mark.parametrize("arguments", [[], ["--input", "[1]"], ["--input", "=[1]"]])
def test_wrong_usage_exits_with_2(arguments):
    with serving(Oip()) as address:
        result = CliRunner().invoke(app, ["infer", "--address", address, *arguments])
    assert result.exit_code == 2
