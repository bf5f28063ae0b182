"""Tensors through the front door: an ordinary client gets the answers of the uncut model."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

from support.clients import infer, triton_input
from support.front import front_door
from support.zoo import VOCABULARY, checkpoint, uncut


@pytest.fixture(scope="module")
def bert():
    with front_door(checkpoint("bert"), [1, 3, 2], max_batch_size=4) as front:
        yield front


@pytest.fixture(scope="module")
def client(bert):
    with triton.InferenceServerClient(bert.address) as client:
        yield client


def tokens(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, VOCABULARY, (rows, length))


def hidden(ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    given = {"input_ids": torch.from_numpy(ids)}
    if mask is not None:
        given["attention_mask"] = torch.from_numpy(mask)
    with torch.inference_mode():
        return uncut("bert")(**given).last_hidden_state.numpy()


def test_metadata_tells_the_true_names_datatypes_and_shapes(client):
    told = client.get_model_metadata("model", as_json=True)
    assert told["name"] == "model"
    assert told["versions"] == ["1"]
    assert told["inputs"] == [
        {"name": "input_ids", "datatype": "INT64", "shape": ["-1", "-1"]},
        {"name": "attention_mask", "datatype": "INT64", "shape": ["-1", "-1"]},
        {"name": "token_type_ids", "datatype": "INT64", "shape": ["-1", "-1"]},
    ], "without a tokenizer there is no text_input"
    assert told["outputs"] == [
        {"name": "last_hidden_state", "datatype": "FP32", "shape": ["-1", "-1", "64"]},
        {"name": "pooler_output", "datatype": "FP32", "shape": ["-1", "64"]},
        {"name": "embedding", "datatype": "FP32", "shape": ["-1", "64"]},
    ]


def test_the_configuration_says_what_may_be_left_out(client):
    config = client.get_model_config("model", as_json=True)["config"]
    by_name = {entry["name"]: entry for entry in config["input"]}
    assert by_name["input_ids"]["data_type"] == "TYPE_INT64"
    assert "optional" not in by_name["input_ids"]
    assert by_name["attention_mask"]["optional"]
    assert config["dynamic_batching"]["preferred_batch_size"] == [4]


def test_server_and_model_are_live_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("model")
    assert client.get_server_metadata().name == "stageline"
    index = client.get_model_repository_index().models
    assert [(model.name, model.version, model.state) for model in index] == [
        ("model", "1", "READY")
    ]


def test_the_answer_is_exactly_the_uncut_models(client):
    ids = tokens(2, 9)
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    answer = infer(client, triton_input("input_ids", ids), triton_input("attention_mask", mask))
    assert answer.get_response().id == ""
    assert answer.get_response().model_version == "1"
    got, expected = answer.as_numpy("last_hidden_state"), hidden(ids, mask)
    assert np.abs(got - expected).max() == 0.0, "the front door changed the model's answer"


def test_only_the_outputs_that_were_asked_for_come_back(client):
    wanted = [triton.InferRequestedOutput("pooler_output")]
    answer = infer(client, triton_input("input_ids", tokens(1, 4)), outputs=wanted, request_id="7")
    assert [output.name for output in answer.get_response().outputs] == ["pooler_output"]
    assert answer.get_response().id == "7"


def test_a_request_larger_than_a_microbatch_comes_back_whole_and_in_order(client, bert):
    ids = tokens(11, 6)
    answer = infer(client, triton_input("input_ids", ids)).as_numpy("last_hidden_state")
    assert answer.shape == (11, 6, 64)
    np.testing.assert_allclose(answer, hidden(ids), atol=1e-5)


def test_requests_of_many_clients_share_microbatches_and_keep_their_rows(client, bert):
    before = bert.pipelines[0].report().stages[0].microbatches
    asked = [tokens(1, 5, seed) for seed in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda ids: infer(client, triton_input("input_ids", ids)), asked))
    for ids, answer in zip(asked, answers, strict=True):
        got = answer.as_numpy("last_hidden_state")
        np.testing.assert_allclose(got, hidden(ids), atol=1e-5)
    after = bert.pipelines[0].wait_until(
        lambda report: report.stages[0].microbatches > before, "a report of the work"
    )
    assert after.stages[0].microbatches - before < 16, "no two of 16 requests at once were joined"


async def test_the_asyncio_client_gets_the_same(bert):
    ids = tokens(3, 7)
    async with triton_aio.InferenceServerClient(bert.address) as client:
        answer = await client.infer("model", [triton_input("input_ids", ids)])
    np.testing.assert_allclose(answer.as_numpy("last_hidden_state"), hidden(ids), atol=1e-5)


def test_tensors_may_travel_on_a_stream_too(bert):
    ids = tokens(1, 4)
    answers: list = []
    with triton.InferenceServerClient(bert.address) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        client.async_stream_infer("model", [triton_input("input_ids", ids)], request_id="a")
        client.stop_stream()
    ((result, error),) = answers
    assert error is None, error
    assert result.get_response().id == "a"
    assert result.get_response().parameters["triton_final_response"].bool_param
    np.testing.assert_allclose(result.as_numpy("last_hidden_state"), hidden(ids), atol=1e-5)


def test_images_are_tensors():
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = uncut("vit")(torch.from_numpy(pixels)).last_hidden_state.numpy()
    with (
        front_door(checkpoint("vit"), [2, 4]) as front,
        triton.InferenceServerClient(front.address) as client,
    ):
        answer = infer(client, triton_input("pixel_values", pixels))
    assert np.abs(answer.as_numpy("last_hidden_state") - expected).max() == 0.0


def test_a_decoder_gives_logits_for_tokens():
    ids = tokens(2, 8)
    with torch.inference_mode():
        expected = uncut("llama")(torch.from_numpy(ids)).logits.numpy()
    with (
        front_door(checkpoint("llama"), [2, 3, 1]) as front,
        triton.InferenceServerClient(front.address) as client,
    ):
        answer = infer(client, triton_input("input_ids", ids))
    np.testing.assert_allclose(answer.as_numpy("logits"), expected, atol=1e-5)


def test_two_pipelines_share_the_work():
    with (
        front_door(checkpoint("bert"), [3, 3], replicas=2, max_batch_size=1) as front,
        triton.InferenceServerClient(front.address) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        inputs = [triton_input("input_ids", tokens(1, 64, seed)) for seed in range(24)]
        deadline = time.monotonic() + 20
        while not all(_worked(pipeline) for pipeline in front.pipelines):
            assert time.monotonic() < deadline, "one of two pipelines had no work in 20 s"
            list(pool.map(lambda given: infer(client, given), inputs))


def _worked(pipeline) -> bool:
    return pipeline.report().stages[0].microbatches > 1  # the first one is the canary
