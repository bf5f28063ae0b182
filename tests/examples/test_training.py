"""The training script itself, for a few steps of a very small model."""

import re
import sys

import pytest
import torch
from safetensors.torch import load_file

SMALL = ("--layers", "1", "--hidden-size", "32", "--context", "64", "--step-bytes", "256")


@pytest.fixture
def run(train, monkeypatch, capsys):
    """Run the script with these arguments; what it printed."""

    def run_script(folder, *arguments):
        monkeypatch.setattr(
            sys, "argv", ["train_tiny_llama.py", "--output", str(folder), *SMALL, *arguments]
        )
        train.main()
        return capsys.readouterr().out

    return run_script


def test_the_loss_falls_and_the_checkpoint_is_written(run, tmp_path):
    output = run(tmp_path, "--steps", "60")
    losses = [float(value) for value in re.findall(r"loss (\d\.\d+)", output)]
    assert len(losses) == 20, output
    assert losses[-1] < losses[0] - 1.0, f"the loss does not fall: {losses}"
    assert re.search(r"held out: \d\.\d{3} bits a byte", output), output
    names = {file.name for file in tmp_path.iterdir()}
    assert names >= {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_weights(run, tmp_path):
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run(tmp_path / folder, "--steps", "3", "--seed", seed)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a), "seed 1 twice, and not the same"
    assert any(not torch.equal(a[name], c[name]) for name in a), "seeds 1 and 2 are the same"


def test_held_out_documents_are_never_trained_on(train):
    training, held_out = (bytes(i % 256 for i in ids.tolist()) for ids in train.corpus())
    assert len(held_out) > 4096, "too little to measure on"
    paragraphs = [line for line in held_out.replace(b"\0", b"\n").split(b"\n") if line]
    seen = [line for line in paragraphs if line in training]
    assert not seen, f"held out, and in the training text: {seen[:3]}"


def test_help_says_what_each_option_does(train, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_tiny_llama.py", "--help"])
    with pytest.raises(SystemExit) as end:
        train.arguments()
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "standard library" in " ".join(text.split())
    for option in ("--output", "--steps", "--context", "--seed", "--learning-rate"):
        assert option in text
