"""Text in: which texts a request may bring, and what a tokenizer cannot read."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from stageline_router.errors import Invalid
from stageline_router.tensors import Input
from stageline_router.text import Tokenizer, read_text


def text(*elements: bytes, shape: tuple[int, ...] | None = None) -> Input:
    shape = (len(elements),) if shape is None else shape
    return Input("text_input", "BYTES", shape, elements=elements)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_texts_come_as_a_list_or_as_a_column(shape):
    assert read_text(text("é".encode(), b"b", shape=shape)) == ["é", "b"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (text(b"a", b"b\xff"), "text 1 of text_input is no UTF-8: byte 1 is wrong"),
        (text("é".encode()[:1]), "text 0 of text_input is no UTF-8: byte 0 is wrong"),
        (text("\ud800".encode("utf-8", "surrogatepass")), "text 0 of text_input is no UTF-8"),
        (text(b"a", b""), "text 1 of text_input is empty"),
        (text(), "input text_input has no text"),
        (text(shape=(0, 1)), "input text_input has no text"),
        (text(b"a", b"b", shape=(1, 2)), "input text_input has shape [1, 2]: send [n] or [n, 1]"),
        (text(b"a", shape=()), "input text_input has shape []"),
        (text(b"a", shape=(1, 1, 1)), "input text_input has shape [1, 1, 1]"),
        (Input("text_input", "UINT8", (1,), b"a"), "input text_input is UINT8: text is BYTES"),
    ],
)
def test_what_is_no_text_is_a_sentence(given, sentence):
    with pytest.raises(Invalid) as refused:
        read_text(given)
    assert sentence in str(refused.value)


def test_a_text_that_the_tokenizer_cannot_read_is_the_clients_to_know():
    library = Library(models.WordLevel({"ring": 0}, "[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(library)
    assert tokenizer.encode("ring ring") == [0, 0]
    with pytest.raises(Invalid, match="tokenizer cannot read this text"):
        tokenizer.encode("rang")
