"""A stage reads its own tensors and nothing else, and says how far it is."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from stageline_worker.microbatch import Microbatch
from stageline_worker.model import StageError, load
from stageline_worker.model.blueprint import draw
from stageline_worker.model.checkpoint import open_checkpoint
from support import zoo
from support.stages import CUTS, inputs, stages

every_model = pytest.mark.parametrize("name", sorted(zoo.ZOO))
_BIG = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6, "vocab_size": 4000,
    "num_attention_heads": 8, "num_key_value_heads": 4, "pad_token_id": 0,
    "max_position_embeddings": 256,
}  # fmt: skip

# Runs in a process of its own, where nothing else reads. Each stage is loaded once for the imports;
# then its files leave the page cache, it is loaded again, and what the kernel counted is compared.
_MEASURE = """
import json, os, sys
from pathlib import Path
from stageline_worker.model import load

def counters():
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}

def measure(folder, lo, hi):
    load(folder, (lo, hi))
    for path in Path(folder).iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = counters()
    stage = load(folder, (lo, hi))
    after = counters()
    read = {name: after[name] - before[name] for name in ("rchar", "read_bytes")}
    return {"own": stage.total_bytes, **read}

print(json.dumps([measure(*case) for case in json.loads(sys.argv[1])]))
"""
_CASES = [
    ("llama", 0, 2),
    ("llama", 2, 4),
    ("llama", 4, 6),
    ("llama-single-file", 2, 4),
    ("llama-tied", 0, 2),
    ("llama-tied", 4, 6),
    ("mixtral", 0, 1),
    ("mixtral", 1, 5),
    ("mixtral", 5, 6),
]


def _save_big_models(folder):
    """So large that headers and config are small beside a stage."""
    from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

    llama = LlamaForCausalLM(LlamaConfig(**_BIG))
    llama.save_pretrained(folder / "llama", max_shard_size="5MB")
    llama.save_pretrained(folder / "llama-single-file")
    tied = LlamaForCausalLM(LlamaConfig(**_BIG, tie_word_embeddings=True))
    tied.save_pretrained(folder / "llama-tied", max_shard_size="5MB")
    mixtral = MixtralConfig(**_BIG, num_local_experts=4, num_experts_per_tok=2)
    MixtralForCausalLM(mixtral).save_pretrained(folder / "mixtral", max_shard_size="5MB")


def test_a_worker_reads_at_most_a_tenth_more_than_its_own_tensors(tmp_path):
    _save_big_models(tmp_path)
    cases = json.dumps([[str(tmp_path / name), lo, hi] for name, lo, hi in _CASES])
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, cases],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for case, read in zip(_CASES, json.loads(done.stdout), strict=True):
        assert read["own"] > 2_000_000, f"{case} is too small to see what else is read"
        assert read["own"] <= read["rchar"] <= 1.1 * read["own"], f"{case} asked for {read}"
        assert read["read_bytes"] <= 1.1 * read["own"], f"{case} read {read} from the disk"


@every_model
def test_stages_hold_every_tensor_and_only_a_tied_head_holds_one_twice(name):
    whole = open_checkpoint(str(zoo.checkpoint(name)))
    blueprint = draw(whole)
    held = [blueprint.owned(whole, *cut) for cut in CUTS]
    names = [tensor.name for tensors in held for tensor in tensors]
    assert set(names) == set(whole.tensors), f"{name}: no stage holds some tensors"
    twice = {tensor for tensor in names if names.count(tensor) > 1}
    assert twice == blueprint.tied, f"{name}: held twice are {twice}"
    for cut, tensors in zip(CUTS, held, strict=True):
        stage = load(str(zoo.checkpoint(name)), cut, dtype="float16")  # in float32 some are blocks
        assert stage.total_bytes == sum(tensor.size for tensor in tensors)
        memory = {part.data_ptr(): part.numel() for part in stage._cut.model.state_dict().values()}
        assert stage.parameters == sum(memory.values()), (
            f"{name}: a stage has other parameters in memory than it read"
        )


@pytest.mark.parametrize("name", ["llama", "mixtral", "bert_masked"])
def test_tensors_are_read_in_the_order_of_the_file(name):
    whole = open_checkpoint(str(zoo.checkpoint(name)))
    for cut in CUTS:
        places = [(str(tensor.file), tensor.offset) for tensor in draw(whole).owned(whole, *cut)]
        assert places == sorted(places)


def test_progress_counts_the_stages_own_bytes_while_they_are_read(monkeypatch):
    monkeypatch.setattr("stageline_worker.model.reader._CHUNK", 4096)
    reports = []
    stage = load(
        str(zoo.checkpoint("llama")),
        (1, 5),
        progress=lambda done, total: reports.append((done, total)),
    )
    done = [report[0] for report in reports]
    assert {total for _, total in reports} == {stage.total_bytes}
    assert done[0] == 0
    assert done[-1] == stage.total_bytes
    assert done == sorted(done)
    largest = max(after - before for before, after in pairwise(done))
    assert largest <= 4096, "a big tensor is reported in one piece"


def test_a_single_file_and_a_sharded_checkpoint_give_the_same_stage(tmp_path):
    zoo.uncut("llama").save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.glob("model*")] == ["model.safetensors"]
    given = Microbatch(inputs("llama", padded=True))
    single = load(str(tmp_path), (0, 1)).forward(given).tensors["hidden_states"]
    assert torch.equal(single, stages("llama")[0].forward(given).tensors["hidden_states"])


def test_a_head_that_is_stored_is_used_although_the_config_ties_it(tmp_path):
    # Not what the library writes, but what some trainers do.
    zoo.uncut("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    last = load(str(tmp_path), CUTS[-1])
    assert last.total_bytes == stages("llama")[-1].total_bytes, "the embedding was read as well"
    hidden = Microbatch({"hidden_states": torch.randn(1, 5, 64)})
    made, expected = (stage.forward(hidden).tensors for stage in (last, stages("llama")[-1]))
    assert torch.equal(made["logits"], expected["logits"])


def test_an_encoder_without_its_pooler_has_no_pooler_output(tmp_path):
    from transformers import BertModel

    BertModel.from_pretrained(zoo.checkpoint("bert"), add_pooling_layer=False).save_pretrained(
        tmp_path
    )
    last = load(str(tmp_path), CUTS[-1])
    assert [output.name for output in last.info.outputs] == ["last_hidden_state", "embedding"]
    made = last.forward(Microbatch({"hidden_states": torch.randn(1, 5, 64)})).tensors
    assert set(made) == {"last_hidden_state", "embedding"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": (2, 2)}, "layers 2 to 2 were asked for, LlamaForCausalLM has 6"),
        ({"layers": (-1, 2)}, "layers -1 to 2"),
        ({"layers": (3, 7)}, "layers 3 to 7"),
        ({"dtype": "int8"}, "dtype int8 is unknown"),
        ({"device": "abacus"}, "device abacus is unknown"),
        ({"device": "meta"}, "device meta is not supported"),
        ({"device": "cuda:99"}, "device cuda:99 is not there"),
        ({"max_model_len": 0}, "maxModelLen is 0"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(options, sentence):
    with pytest.raises(StageError, match=sentence):
        load(str(zoo.checkpoint("llama")), **{"layers": (0, 2), **options})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["llama_tied", "mixtral", "bert"])
def test_on_a_gpu_everything_is_there(name):
    for cut in CUTS:
        stage = load(str(zoo.checkpoint(name)), cut)
        assert stage.device.startswith("cuda")
        tensors = [*stage._cut.model.parameters(), *stage._cut.model.buffers()]
        assert {tensor.device.type for tensor in tensors} == {"cuda"}
