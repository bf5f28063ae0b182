"""The language model in examples/models/tiny-llama: whole, good enough to show, exact in text."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaForCausalLM

FOLDER = Path(__file__).resolve().parents[2] / "examples/models/tiny-llama"
END = "<|endoftext|>"
END_ID = 256
HELD_OUT_BITS = 2.2  # the card says what it was; another Python holds out other documents
TOKENIZER = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def test_the_checkpoint_is_bfloat16_and_finite_and_small():
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    assert not broken, f"not finite: {broken}"
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    assert size < 2.5 * 2**20, f"the folder has {size:,} bytes; every clone carries it"


def test_the_card_has_the_figures_and_the_licence():
    card = (FOLDER / "README.md").read_text()
    parameters = sum(tensor.numel() for tensor in _tensors())
    for fact in (f"{parameters:,}", "bits a byte", "PSF", "scripts/train_tiny_llama.py"):
        assert fact in card, f"README.md of the model does not say {fact}"


def test_it_predicts_text_that_it_was_not_trained_on(model, train):
    _, held_out = train.corpus()
    bits = train.bits_per_byte(model, held_out, train.POSITIONS)
    assert bits < HELD_OUT_BITS, f"{bits:.3f} bits a byte on held-out documents"


def test_it_continues_a_prompt_with_words(model, train):
    words = train.sample(model).removeprefix(train.SAMPLE).split()
    assert len(words) > 20, f"hardly any spaces: {words}"
    corpus = set(" ".join(train.documents()).split())
    known = sum(word in corpus for word in words) / len(words)
    assert known > 0.7, f"only {known:.0%} of these are words of the reference: {words}"


def test_it_can_end_a_text_by_itself():
    for name in ("config.json", "generation_config.json"):
        assert json.loads((FOLDER / name).read_text())["eos_token_id"] == END_ID, name
    assert TOKENIZER.token_to_id(END) == END_ID


def test_the_tokenizer_is_the_one_that_the_script_makes(train):
    assert TOKENIZER.to_str() == train.tokenizer().to_str(), "run make train, or revert the script"


def test_ids_are_the_values_of_bytes():
    text = "".join(chr(code) for code in (*range(0x250), 0x20AC, 0x1F600))
    assert TOKENIZER.encode(text).ids == list(text.encode())
    assert TOKENIZER.get_vocab_size() == 257


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


@given(st.text(max_size=5), st.text(max_size=5))
def test_text_can_not_forge_the_end(before, after):
    text = before + END + after
    ids = TOKENIZER.encode(text).ids
    assert END_ID not in ids
    assert TOKENIZER.decode(ids) == text


def test_the_end_itself_is_no_text():
    for skip in (False, True):
        assert TOKENIZER.decode([*b"over", END_ID], skip_special_tokens=skip) == "over"


def test_transformers_reads_the_tokenizer_too():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    ids = tokenizer("Grüße, 世界\n")["input_ids"]
    assert ids == list("Grüße, 世界\n".encode())
    assert tokenizer.decode(ids) == "Grüße, 世界\n"


def _tensors() -> list[torch.Tensor]:
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        return [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
