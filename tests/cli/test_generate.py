"""`stageline generate` against a small server of the protocol."""

import asyncio
import json
import os
import signal
import sys

import pytest
from typer.testing import CliRunner

from stageline_cli.failure import Failure
from stageline_cli.main import app
from support.oip_server import (
    FOREVER,
    GENERATOR,
    Oip,
    Tensor,
    final_response,
    serving,
    text_response,
)


def generate(servicer, *arguments):
    with serving(servicer) as address:
        result = CliRunner().invoke(app, ["generate", "--address", address, *arguments])
    if isinstance(result.exception, Failure):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def sent(request):
    return dict(zip((i.name for i in request.inputs), request.raw_input_contents, strict=True))


def test_pieces_are_joined_and_the_line_is_ended():
    server = Oip(inputs=GENERATOR, pieces=["Once", " upon", " a tïme"])
    assert generate(server, "Say") == "Once upon a tïme\n"
    inputs = sent(server.requests[0])
    assert inputs["text_input"] == b"\x03\0\0\0Say"
    assert inputs["stream"] == b"\x01"
    assert inputs["exclude_input_in_output"] == b"\x01"
    assert "sampling_parameters" not in inputs


def test_text_that_ends_its_line_gets_no_second_end():
    assert generate(Oip(inputs=GENERATOR, pieces=["a\n"]), "Say") == "a\n"


def test_final_response_ends_the_stream_that_the_server_keeps_open():
    server = Oip(inputs=GENERATOR, pieces=["a", final_response(), FOREVER])
    assert generate(server, "Say") == "a\n"  # at all: without the end of the call there is none


def test_options_become_sampling_parameters():
    server = Oip(inputs=GENERATOR, pieces=["a"])
    generate(
        server, "Say", "--max-tokens", "5", "--temperature", "0.5", "--top-p", "0.9",
        "--top-k", "3", "--seed", "7", "--stop", "x", "--stop", "y",
    )  # fmt: skip
    assert json.loads(sent(server.requests[0])["sampling_parameters"][4:]) == {
        "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 7,
        "stop": ["x", "y"],
    }  # fmt: skip


def test_no_stream_asks_for_the_whole():
    server = Oip(inputs=GENERATOR, answer=lambda request: text_response(request, "whole"))
    assert generate(server, "Say", "--no-stream") == "whole\n"
    assert sent(server.requests[0])["stream"] == b"\x00"


def test_server_without_streams_is_asked_for_the_whole():
    server = Oip(inputs=GENERATOR, answer=lambda request: text_response(request, "whole"))
    assert generate(server, "Say") == "whole\n"
    assert sent(server.requests[-1])["stream"] == b"\x00"


def test_inputs_that_the_model_does_not_have_are_not_sent():
    inputs = (Tensor(name="text_input", datatype="BYTES", shape=[-1, 1]),)
    server = Oip(inputs=inputs, pieces=["a"])
    assert generate(server, "Say") == "a\n"
    (tensor,) = server.requests[0].inputs
    assert (tensor.name, list(tensor.shape)) == ("text_input", [1, 1])


TOKENS = (Tensor(name="input_ids", datatype="INT64", shape=[-1, -1]),)


@pytest.mark.parametrize(
    ("server", "arguments", "sentence"),
    [
        ({"pieces": [ValueError("the ring broke at stage 1")]}, [], "the ring broke at stage 1"),
        ({"pieces": ["a", FOREVER]}, ["--timeout", "0.3"], "no answer within 0.3 s"),
        ({"inputs": TOKENS}, [], "m generates no text (it takes input_ids)"),
        ({"answer": ValueError("temperature")}, ["--no-stream"], "temperature"),
        (
            {"inputs": GENERATOR[:1]},
            ["--top-k", "3"],
            "m takes no sampling_parameters: leave out --top-k",
        ),
    ],
)
def test_failures_are_sentences(server, arguments, sentence):
    with pytest.raises(Failure) as caught:
        generate(Oip(**{"inputs": GENERATOR, **server}), "Say", *arguments)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "option", [["--top-p", "2"], ["--max-tokens", "0"], ["--temperature", "x"]]
)
def test_wrong_usage_exits_with_2(option):
    assert CliRunner().invoke(app, ["generate", "Say", *option]).exit_code == 2


async def command(*arguments):
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stageline_cli.main", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_text_comes_before_the_end_and_ctrl_c_frees_the_server():
    server = Oip(inputs=GENERATOR, pieces=["first ", FOREVER])
    with serving(server) as address:
        process = await command("generate", "Say", "--address", address)
        assert await process.stdout.readexactly(6) == b"first "
        os.kill(process.pid, signal.SIGINT)
        rest, errors = await process.communicate()
        assert await asyncio.to_thread(server.given_up.wait, 10), "the server still generates"
    assert process.returncode == 130
    assert (rest.strip(), errors) == (b"", b"")
