"""A router has its tokenizer from wherever its model is, and nothing else of it."""

from __future__ import annotations

import pytest
from huggingface_hub import constants
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from stageline_router.text import Tokenizer
from support import bucket as buckets
from support import hub as hubs


@pytest.fixture
def folder(tmp_path):
    """A model of which nothing but the tokenizer can be read."""
    library = Library(models.WordLevel({"ring": 7, "[UNK]": 0}, "[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.fixture
def hub(folder, monkeypatch):
    with hubs.serving(hubs.Hub(folder)) as hub:
        monkeypatch.setattr("stageline_sources.hub.ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def test_the_hubs_tokenizer_is_the_folders(hub, folder):
    for uri in (str(folder), folder.as_uri(), "hf://owner/model"):
        assert Tokenizer.load(uri).encode("ring wheel") == [7, 0]
    assert set(hub.served) == {"tokenizer.json"}


def test_the_buckets_tokenizer_is_the_folders(folder, monkeypatch):
    with buckets.serving(buckets.Bucket()) as bucket:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "reader")
        bucket.upload(folder, "llama")
        assert Tokenizer.load("s3://models/llama").encode("ring") == [7]
        assert Tokenizer.load("s3://models/other") is None
        assert set(bucket.served) - {"tokenizer.json"} == set()


def test_a_model_without_a_tokenizer_has_none(hub, folder):
    (folder / "tokenizer.json").unlink()
    assert Tokenizer.load("hf://owner/model") is None
    assert Tokenizer.load(folder.as_uri()) is None


def test_what_is_refused_or_damaged_is_one_sentence(hub, folder):
    hub.refuse["*"] = (401, "GatedRepo")
    with pytest.raises(ValueError, match="hf://owner/model is gated") as told:
        Tokenizer.load("hf://owner/model")
    assert "\n" not in str(told.value)
    hub.refuse.clear()
    (folder / "tokenizer.json").write_text("{}")
    for uri in ("hf://owner/model", folder.as_uri()):
        with pytest.raises(ValueError, match=f"{uri}/tokenizer.json is no tokenizer"):
            Tokenizer.load(uri)
