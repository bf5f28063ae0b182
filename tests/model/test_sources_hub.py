"""A model on the hub is profiled from its JSON files and headers; what the hub refuses is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest
from huggingface_hub import constants

from stageline_api.profile import ModelProfile
from stageline_sources import Reader, SourceError, open_source
from stageline_worker.model import CheckpointError, UnsupportedModelError, profile
from stageline_worker.model.shadow import cast_shadow
from support import zoo
from support.hub import COMMIT, Hub, in_seconds, serving

URI = "hf://owner/model@v1"


def fetch_headers(uri, folder):
    folder.mkdir(parents=True, exist_ok=True)
    return cast_shadow(Reader(open_source(uri)), folder)


def without_commit(found):
    return found.model_copy(update={"commit": ""})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with a sharded llama, as huggingface_hub sees it in this process."""
    folder = tmp_path / "model"
    zoo.uncut("llama").save_pretrained(folder, max_shard_size="150KB")
    with serving(Hub(folder)) as hub:
        monkeypatch.setattr("stageline_sources.hub.ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "secret")
        yield hub


def test_the_profile_is_that_of_the_same_model_in_a_folder(hub):
    found = profile(URI)
    assert found.commit == COMMIT
    assert without_commit(found) == profile(str(hub.folder))


def test_only_headers_are_read_of_one_commit_and_the_token_stays_with_the_hub(hub, tmp_path):
    hub.token = "secret"
    shards = sorted(hub.folder.glob("*.safetensors"))
    assert len(shards) > 3
    weights = 8 << 20
    for shard in shards:  # what lies behind a header may be as large as it likes
        with shard.open("ab") as file:
            file.truncate(file.tell() + weights)
    fetched = tmp_path / "fetched"
    fetch_headers(URI, fetched)
    for shard in shards:
        assert (fetched / shard.name).stat().st_size == shard.stat().st_size
        assert hub.served[shard.name] < weights / 8
    assert hub.revisions == {"v1", COMMIT}
    assert not hub.leaked, f"the token went to another host with {hub.leaked}"


def test_a_long_header_is_read_to_its_end_and_no_further(hub, tmp_path):
    (single := hub.folder / "model.safetensors").unlink(missing_ok=True)
    (hub.folder / "model.safetensors.index.json").unlink()
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"w": tensor, "__metadata__": {"long": "x" * 600_000}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(5_000_000)
    single.write_bytes(content)
    fetch_headers(URI, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "model.safetensors").read_bytes() == content
    assert hub.served["model.safetensors"] == 8 + len(header)


def test_an_embedding_models_pooling_is_known(hub, tmp_path):
    shutil.copytree(zoo.checkpoint("bert"), bert := tmp_path / "bert")
    (bert / "modules.json").write_text(
        json.dumps(
            [
                {"type": "sentence_transformers.models.Transformer", "path": ""},
                {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
            ]
        )
    )
    (bert / "1_Pooling").mkdir()
    (bert / "1_Pooling" / "config.json").write_text('{"pooling_mode": "lasttoken"}')
    hub.folder = bert
    with pytest.raises(UnsupportedModelError, match="pooling lasttoken is not supported"):
        profile(URI)
    (bert / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    assert without_commit(profile(URI)) == profile(str(bert))


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, "RepoNotFound"), "is not on http"),
        ((401, ""), "does not accept the token in HF_TOKEN, it may have expired"),
        ((403, "GatedRepo"), "is gated, and the owner of HF_TOKEN may read it"),
        ((403, ""), "forbids it"),
        ((404, "RepoNotFound"), "check its name and the token"),
        ((404, "RevisionNotFound"), "has no revision v1"),
        ((404, "EntryNotFound"), "is not a model: it has no config.json"),
        ((416, ""), "answered 416 for config.json"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub, tmp_path, refusal, words):
    hub.refuse["*"] = refusal
    with pytest.raises((CheckpointError, SourceError), match=words) as told:
        fetch_headers(URI, tmp_path)
    assert "\n" not in str(told.value)
    assert URI in str(told.value)


def test_without_a_token_the_sentence_says_so(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    hub.token = "secret"
    with pytest.raises(SourceError, match="nobody without a token in HF_TOKEN may read it"):
        fetch_headers(URI, tmp_path)


def test_a_hub_that_names_a_date_is_asked_again_then(hub, tmp_path, waits):
    hub.busy = [(503, {"Retry-After": in_seconds(30)})]
    fetch_headers(URI, tmp_path)
    (wait,) = waits
    assert 25 < wait <= 30


@pytest.mark.parametrize(
    ("busy", "wait"),
    [
        ((503, {}), None),
        ((500, {}), None),
        ((429, {"Retry-After": "7"}), 7),
        ((429, {"RateLimit": '"resolvers";r=0;t=41'}), 41),
    ],
)
def test_a_busy_hub_is_asked_again_when_it_says(hub, tmp_path, waits, busy, wait):
    hub.busy = [busy]
    fetch_headers(URI, tmp_path)
    assert not hub.busy
    assert len(waits) == 1
    assert waits == [wait] if wait else waits[0] <= 1


def test_a_hub_that_stays_busy_is_told(hub, tmp_path, waits):
    hub.refuse["config.json"] = (503, "")
    with pytest.raises(SourceError, match=r"config.json cannot be read: .* answered 503, 6 times"):
        fetch_headers(URI, tmp_path)
    assert len(waits) == 5
    assert sum(waits) < 60


def test_nobody_waits_for_an_hour(hub, tmp_path, waits):
    hub.busy = [(429, {"Retry-After": "3600"})]
    with pytest.raises(SourceError, match="answered 429, and it asks to wait 3600 s"):
        fetch_headers(URI, tmp_path)
    assert not waits


def test_no_network_and_offline_mode_are_told(hub, tmp_path, monkeypatch, waits):
    monkeypatch.setattr("stageline_sources.hub.ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(SourceError, match="no answer from http"):
        fetch_headers(URI, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE is set"):
        fetch_headers(URI, tmp_path)


def test_a_file_that_is_not_what_the_hub_says_is_refused(hub):
    hub.damage = True
    with pytest.raises(CheckpointError, match=r"config\.json arrived damaged, its checksum"):
        profile(URI)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "model.safetensors.index.json",
            '{"weight_map": {"w": "../../x"}}',
            "outside of the model",
        ),
        ("model.safetensors.index.json", '{"weight_map": {"w": "a", "v": "a/b"}}', "is missing"),
        ("model.safetensors.index.json", '{"weight_map": 7}', "no weight_map"),
        ("config.json", "[", "not JSON"),
    ],
)
def test_a_damaged_or_hostile_model_is_told_by_its_address(hub, tmp_path, name, content, words):
    (hub.folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=words) as told:
        profile(URI)
    assert tempfile.gettempdir() not in str(told.value)


def test_modules_outside_of_the_model_are_not_fetched(hub, tmp_path):
    (hub.folder / "modules.json").write_text('[{"type": "x.Pooling", "path": "../../x"}]')
    (hub.folder.parent.parent / "x").mkdir()
    fetch_headers(URI, tmp_path / "one" / "two")
    assert not (tmp_path / "x").exists()
    assert not any("x/config.json" in name for name in hub.served)


def test_the_command_asks_the_endpoint_of_its_environment(hub, tmp_path):
    hub.token = "secret"
    environment = {
        name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"
    } | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "secret", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "stageline_worker", "profile", "hf://owner/model"],
        capture_output=True, text=True, timeout=60, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = ModelProfile.model_validate_json(done.stdout)
    assert without_commit(found) == profile(str(hub.folder))
