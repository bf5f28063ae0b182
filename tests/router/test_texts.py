"""Several texts of one prompt, how likely their tokens were, what is counted: as Triton does."""

from __future__ import annotations

import itertools
import json
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from stageline.oip import grpc_service_pb2 as oip
from stageline_router.generation import Generation, Prompt
from stageline_router.options import GenerationOptions
from stageline_router.responses import TextResponses
from stageline_router.text import Tokenizer
from support.clients import infer, outcome, text_input
from support.front import front_door
from support.lettered import lettered
from support.streams import Stream, flag, text_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "generation.md"
PROMPT = "The ring turns."
WARM = {"max_tokens": 12, "temperature": 1.0, "seed": 11, "ignore_eos": True}
STOPS = '["a", "e", "o", "x"]'
ALL = (
    "return_finish_reason", "return_cumulative_logprob", "return_logprobs",
    "return_num_input_tokens", "return_num_output_tokens",
)  # fmt: skip


@pytest.fixture(scope="module")
def front():
    with front_door(lettered(), [3, 3]) as front:
        yield front


@pytest.fixture(scope="module")
def client(front):
    with triton.InferenceServerClient(front.address) as client:
        yield client


@pytest.fixture
def stream(front):
    with closing(Stream(front.address)) as stream:
        yield stream


def texts(result) -> list[str]:
    return [text.decode() for text in result.as_numpy("text_output")]


def whole(client, *flags: str, **options):
    inputs = [text_input(PROMPT), flag("exclude_input_in_output"), *map(flag, flags)]
    return infer(client, *inputs, parameters=options)


def test_n_texts_are_those_of_their_seeds(client):
    several = texts(whole(client, **WARM, n=4))
    alone = [texts(whole(client, **{**WARM, "seed": 11 + i})) for i in range(4)]
    assert [several] == [[text for (text,) in alone]]
    assert len(set(several)) == 4


def test_n_whole_texts_each_begin_with_the_prompt(client):
    answer = infer(client, text_input(PROMPT), parameters={**WARM, "n": 2})
    assert all(text.startswith(PROMPT) for text in texts(answer))


def test_each_response_of_a_stream_has_a_piece_of_each_text(client, stream):
    expected = whole(client, "return_finish_reason", **WARM, n=3, stop=STOPS)
    stream.ask(
        PROMPT, "n", parameters={**WARM, "n": 3, "stop": STOPS, "return_finish_reason": True}
    )
    results = stream.collect(1)["n"]
    pieces = [texts(result) for result in results]
    assert all(len(piece) == 3 for piece in pieces)
    assert ["".join(text) for text in zip(*pieces, strict=True)] == texts(expected)
    reasons = [result.as_numpy("finish_reason").tolist() for result in results]
    assert reasons[-1] == expected.as_numpy("finish_reason").tolist()
    for before, after in itertools.pairwise(reasons):
        assert all(b in (b"None", a) for b, a in zip(before, after, strict=True)), reasons


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("most", [0, 2])
def test_additional_outputs_are_those_of_tritons_backend(client, stream, streamed, most):
    options = {"max_tokens": 10, "logprobs": most, "ignore_eos": True}
    if streamed:
        stream.ask(PROMPT, "all", parameters=options | dict.fromkeys(ALL, True))
        results = stream.collect(1)["all"]
    else:
        results = [whole(client, *ALL, **options)]
    counted, said, so_far = 0, "", 0.0
    for result in results:
        (count,), (told,) = result.as_numpy("num_output_tokens"), result.as_numpy("logprobs")
        drawn = json.loads(told)
        assert len(drawn) == count > 0
        counted += int(count)
        assert result.as_numpy("num_input_tokens").tolist() == [len(PROMPT)]
        for each in drawn:
            assert 1 <= len(each) <= most + 1
            (best,) = (entry for entry in each.values() if entry["rank"] == 1)
            assert best["logprob"] == max(entry["logprob"] for entry in each.values()) <= 0
            said += best["decoded_token"]
            so_far += best["logprob"]
        assert result.as_numpy("cumulative_logprob")[0] == pytest.approx(so_far, rel=1e-5)
    assert counted == 10
    assert said == "".join(map(text_of, results)), "greedy: the likeliest token is the drawn one"
    assert results[-1].as_numpy("finish_reason").tolist() == [b"length"]
    assert all(r.as_numpy("finish_reason").tolist() == [b"None"] for r in results[:-1])


def test_logprobs_that_were_not_asked_for_are_null(client):
    answer = whole(client, "return_logprobs", max_tokens=2)
    assert answer.as_numpy("logprobs").tolist() == [b"null"]


def test_only_named_outputs_come(client):
    wanted = [triton.InferRequestedOutput(name) for name in ("num_output_tokens", "finish_reason")]
    answer = infer(client, text_input(PROMPT), outputs=wanted, parameters={"max_tokens": 2})
    assert {output.name for output in answer.get_response().outputs} == {
        "num_output_tokens", "finish_reason",
    }  # fmt: skip


def test_nothing_ends_a_text_before_its_least_tokens(client):
    free = text_of(whole(client, max_tokens=30, ignore_eos=True))
    stop = free[3]
    assert text_of(whole(client, max_tokens=30, stop=stop)) == free[: free.index(stop)]
    held = whole(client, "return_num_output_tokens", max_tokens=30, stop=stop, min_tokens=20)
    assert held.as_numpy("num_output_tokens")[0] >= 20
    marks = whole(client, "return_num_output_tokens", **{**WARM, "ignore_eos": False},
                  stop_token_ids=str([*range(3, 200)]), min_tokens=7)  # fmt: skip
    assert 7 <= marks.as_numpy("num_output_tokens")[0] <= 12


def test_penalties_change_what_is_said(client):
    plain = text_of(whole(client, max_tokens=40, ignore_eos=True))
    for penalty in ({"repetition_penalty": 1.5}, {"presence_penalty": 2.0},
                    {"frequency_penalty": 2.0}):  # fmt: skip
        assert text_of(whole(client, max_tokens=40, ignore_eos=True, **penalty)) != plain, penalty
    assert text_of(whole(client, **{**WARM, "min_p": 1.0})) == plain[:12], "only the likeliest"


def test_a_wrong_option_of_several_texts_is_a_sentence(client):
    assert "all 2 texts would be the same one" in str(
        outcome(client, text_input(PROMPT), parameters={"n": 2})
    )


def test_the_example_of_the_page_runs(front, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    here = code.replace("127.0.0.1:8001", front.address).replace('"tiny-llama"', '"model"')
    assert (front.address in here, '"model"' in here) == (True, True)
    names: dict[str, object] = {}
    exec(compile(here, str(PAGE), "exec"), names)
    names["client"].close()
    assert capsys.readouterr().out.startswith("The value of")


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("request_id", ["", "é" * 200])
def test_appended_bytes_are_the_message_that_protobuf_would_write(n, request_id):
    tokenizer = Tokenizer.load(str(lettered()))
    assert tokenizer is not None
    request = oip.ModelInferRequest(id=request_id)
    options = GenerationOptions(n=n, temperature=1, **dict.fromkeys(ALL, True))
    generation = Generation(Prompt("a", [70]), options, tokenizer)
    responses = TextResponses("model", request, options, tokenizer)
    for text in generation.texts:
        for token in tokenizer.encode("näh" * 60):
            text.take(token, None, None)
    expected = responses.whole(generation, repeat="")
    expected.parameters["triton_final_response"].bool_param = True
    again = Generation(Prompt("a", [70]), options, tokenizer)
    for text in again.texts:
        for token in tokenizer.encode("näh" * 60):
            text.take(token, None, None)
    made = oip.ModelStreamInferResponse.FromString(responses.delta(again, final=True))
    assert made == oip.ModelStreamInferResponse(infer_response=expected)
    assert np.frombuffer(made.infer_response.raw_output_contents[-1], "<u4").tolist() == [240] * n
