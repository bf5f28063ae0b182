"""Text in, text out: whole, streamed, several at once, and given up half way."""

from __future__ import annotations

import queue
import time

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tokenizers import Tokenizer
from tritonclient.utils import InferenceServerException

from support.clients import infer, outcome, text_input, triton_input
from support.front import front_door
from support.lettered import lettered
from support.stages import greedy
from support.streams import Stream, flag, text_of
from support.zoo import uncut

PROMPT = "The ring turns."


@pytest.fixture(scope="module")
def front():
    with front_door(lettered(), [2, 3, 1], max_queue=8) as front:
        yield front


@pytest.fixture(scope="module")
def client(front):
    with triton.InferenceServerClient(front.address) as client:
        yield client


def expected(prompt: str, count: int) -> str:
    """The uncut model's own greedy text, up to its end-of-text token."""
    tokenizer = Tokenizer.from_file(str(lettered() / "tokenizer.json"))
    made = greedy(uncut("llama"), torch.tensor(tokenizer.encode(prompt).ids), count)
    return tokenizer.decode(made[: made.index(2)] if 2 in made else made)


@pytest.fixture
def stream(front):
    stream = Stream(front.address)
    yield stream
    stream.close()


def test_a_whole_text_is_the_uncut_models_and_begins_with_the_prompt(client):
    answer = infer(client, text_input(PROMPT), parameters={"max_tokens": 24})
    assert text_of(answer) == PROMPT + expected(PROMPT, 24)


def test_the_prompt_can_be_left_out_and_the_reason_asked_for(client):
    options = triton_input("sampling_parameters", np.array([b'{"max_tokens": 8}'], dtype=object))
    inputs = [text_input(PROMPT), options, flag("exclude_input_in_output")]
    answer = infer(client, *inputs, flag("return_finish_reason"), flag("return_num_output_tokens"))
    assert text_of(answer) == expected(PROMPT, 8)
    assert answer.as_numpy("finish_reason").tolist() == [b"length"]
    assert answer.as_numpy("num_output_tokens").tolist() == [8]


def test_a_stop_string_ends_the_text_before_it(client):
    whole = expected(PROMPT, 24)
    stop = whole[10:12]
    answer = infer(
        client,
        text_input(PROMPT),
        flag("exclude_input_in_output"),
        flag("return_finish_reason"),
        parameters={"max_tokens": 24, "stop": stop},
    )
    assert text_of(answer) == whole[: whole.index(stop)]
    assert answer.as_numpy("finish_reason").tolist() == [b"stop"]


def test_a_seed_gives_the_same_text_and_another_seed_another(client):
    def text(seed: int) -> str:
        options = {"max_tokens": 24, "temperature": 1.0, "seed": seed}
        return text_of(infer(client, text_input(PROMPT), parameters=options))

    assert text(1) == text(1)
    assert len({text(seed) for seed in (1, 2, 3)}) > 1, "the seed has no effect"


def test_streamed_deltas_are_the_whole_text(stream):
    stream.ask(PROMPT, "one", parameters={"max_tokens": 24})
    (results,) = stream.collect(1).values()
    assert len(results) > 4, "the text did not come as it was made"
    assert "".join(map(text_of, results)) == expected(PROMPT, 24)


def test_many_requests_on_one_stream_keep_their_own_text(stream):
    prompts = {f"r{i}": f"prompt {i} " + "x" * i for i in range(6)}
    for request_id, prompt in prompts.items():
        stream.ask(prompt, request_id, parameters={"max_tokens": 16})
    answers = stream.collect(len(prompts))
    for request_id, prompt in prompts.items():
        assert "".join(map(text_of, answers[request_id])) == expected(prompt, 16), request_id


def test_a_client_may_ask_for_an_empty_last_response(stream):
    stream.ask(PROMPT, "one", parameters={"max_tokens": 4}, enable_empty_final_response=True)
    (results,) = stream.collect(1).values()
    assert not results[-1].get_response().outputs
    assert all(result.get_response().outputs for result in results[:-1])


def test_an_error_stays_inside_the_stream_and_names_its_request(stream):
    stream.ask(PROMPT, "bad", parameters={"temperature": float("nan")})
    _result, error = stream.answers.get(timeout=30)
    assert "temperature" in str(error)
    stream.ask(PROMPT, "good", parameters={"max_tokens": 4})
    assert "".join(map(text_of, stream.collect(1)["good"])) == expected(PROMPT, 4)


async def test_the_asyncio_client_streams_too(front):
    async def requests():
        inputs = [text_input(PROMPT), flag("stream")]
        yield {"model_name": "model", "inputs": inputs, "parameters": {"max_tokens": 12}}

    async with triton_aio.InferenceServerClient(front.address) as client:
        texts = []
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            texts.append(text_of(result))
    assert "".join(texts) == expected(PROMPT, 12)


def test_a_stream_of_one_answer_is_a_whole_text(front):
    answers: queue.SimpleQueue = queue.SimpleQueue()
    with triton.InferenceServerClient(front.address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("model", [text_input(PROMPT)], parameters={"max_tokens": 6})
        client.stop_stream()
    result, error = answers.get(timeout=30)
    assert error is None, error
    assert text_of(result) == PROMPT + expected(PROMPT, 6)


def test_unary_refuses_to_stream(client):
    with pytest.raises(InferenceServerException, match="ModelStreamInfer"):
        infer(client, text_input(PROMPT), flag("stream"))


def test_a_client_that_goes_away_frees_its_place(front):
    pipeline = front.pipelines[0]
    streams = [Stream(front.address) for _ in range(8)]  # as many as the router holds
    for stream in streams:
        stream.ask(PROMPT, "long", parameters={"max_tokens": 200, "ignore_eos": True})
    pipeline.wait_until(lambda report: report.sequences == 8, "eight generations at once")
    for stream in streams:
        stream.close(cancel=True)
    pipeline.wait_until(lambda report: report.sequences == 0, "free places", seconds=5)
    deadline = time.monotonic() + 5
    ask = {"parameters": {"max_tokens": 4}}
    with triton.InferenceServerClient(front.address) as client:
        while isinstance(answer := outcome(client, text_input(PROMPT), **ask), Exception):
            assert "RESOURCE_EXHAUSTED" in str(answer.status()), answer
            assert time.monotonic() < deadline, "the router never noticed that they were gone"
    assert text_of(answer) == PROMPT + expected(PROMPT, 4)


def test_more_requests_than_the_router_holds_are_told_so(front):
    stream = Stream(front.address)
    for i in range(12):
        stream.ask(PROMPT, str(i), parameters={"max_tokens": 64})
    told = [stream.answers.get(timeout=30) for _ in range(4)]
    assert any(error is not None and "holds no more" in str(error) for _, error in told), told
    stream.close(cancel=True)
    front.pipelines[0].wait_until(lambda report: report.sequences == 0, "free places")


def test_metadata_lists_text_beside_tensors(client, front):
    told = client.get_model_metadata("model")
    assert {"input_ids", "text_input", "stream", "sampling_parameters"} <= {
        tensor.name for tensor in told.inputs
    }
    assert {"logits", "text_output", "finish_reason"} <= {tensor.name for tensor in told.outputs}
    config = client.get_model_config("model").config
    assert config.model_transaction_policy.decoupled
    slots = front.pipelines[0].report().sequence_slots
    assert config.parameters["sequence_slots"].string_value == str(slots)
