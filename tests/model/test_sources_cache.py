"""What is kept of a model on a node: never believed when it is damaged, never needed."""

from __future__ import annotations

import errno
import os
import threading
import time
from dataclasses import replace

import pytest
import torch
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from stageline.v1 import pipeline_pb2 as pb
from stageline_sources import Part, PartCache
from stageline_worker.model import load
from support import bucket as buckets
from support import hub as hubs
from support import zoo
from support.pipeline import QUICK, local_pipeline

PART = Part("hub/owner/model", "model.safetensors", "v1", 8, 12)
PINNED = f"hf://owner/model@{hubs.COMMIT}"
CUT = (0, 2)


@pytest.fixture
def cache(tmp_path):
    return PartCache(tmp_path)


@pytest.fixture
def hub(monkeypatch):
    with hubs.serving(hubs.Hub(zoo.checkpoint("llama"))) as hub:
        monkeypatch.setattr("stageline_sources.hub.ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def read(cache, part=PART):
    memory = bytearray(part.end - part.begin)
    return bytes(memory) if cache.read_into(part, memoryview(memory)) else None


def entry(cache):
    """The one file that there is."""
    (found,) = [path for path in cache.folder.rglob("*") if path.is_file()]
    return found


# A part


def test_what_is_kept_is_there_for_another_process(cache):
    assert read(cache) is None
    cache.keep(PART, memoryview(b"abcd"))
    other = PartCache(cache.folder)
    assert read(other) == b"abcd"
    assert not other.complaint


@pytest.mark.parametrize(
    "other",
    [
        PART._replace(version="v2"), PART._replace(file="x"), PART._replace(source="y"),
        PART._replace(begin=9, end=13),
    ],
)  # fmt: skip
def test_another_part_or_version_is_not_there(cache, other):
    cache.keep(PART, memoryview(b"abcd"))
    assert read(cache, other) is None


@given(st.binary(max_size=64), st.data())
def test_a_part_that_was_cut_off_or_spoilt_is_forgotten(tmp_path_factory, content, data):
    cache = PartCache(tmp_path_factory.mktemp("cache"))
    part = PART._replace(begin=0, end=len(content))
    cache.keep(part, memoryview(content))
    file = entry(cache)
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    spoilt = whole[:place]
    if data.draw(st.booleans(), label="spoilt in its middle"):
        spoilt += bytes([whole[place] ^ 1]) + whole[place + 1 :]
    file.write_bytes(spoilt)
    assert read(cache, part) is None
    assert not file.exists(), "it would be read again and again"
    cache.keep(part, memoryview(content))
    assert read(cache, part) == content


def test_what_a_writer_that_died_has_left_is_removed_and_that_of_one_at_work_is_not(cache):
    cache.keep(PART, memoryview(b"abcd"))
    folder = entry(cache).parent
    old, young = folder / ".unfinished-old", folder / ".unfinished-young"
    for path in (old, young):
        path.write_bytes(b"ab")
    long_ago = time.time() - 86_400
    os.utime(old, (long_ago, long_ago))
    PartCache(cache.folder).keep(PART._replace(begin=0), memoryview(b"x" * 12))
    assert (old.exists(), young.exists()) == (False, True)


def test_many_writers_of_one_part_leave_it_whole(cache):
    part = PART._replace(begin=0, end=1 << 20)
    content = memoryview(bytes(1 << 20))
    writers = [
        threading.Thread(target=PartCache(cache.folder).keep, args=(part, content))
        for _ in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert read(cache, part) == bytes(1 << 20)
    assert entry(cache).name == "0-1048576"


def test_a_full_cache_says_so_once_and_leaves_nothing_half_written(cache, monkeypatch):
    tries = []

    def refuse(self, target):
        tries.append(self)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    cache.keep(PART, memoryview(b"abcd"))
    cache.keep(PART, memoryview(b"abcd"))
    assert len(tries) == 1, "a cache that is full is written to once more"
    assert "cannot be written (No space left on device)" in cache.complaint
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_cache_that_can_be_written_again_is_of_use_again(cache, monkeypatch, number):
    refuses = [True]
    opened = type(cache.folder).open

    def refuse(self, mode="r", *rest, **more):
        if mode == "wb" and refuses:
            raise OSError(number, os.strerror(number))
        return opened(self, mode, *rest, **more)

    monkeypatch.setattr("pathlib.Path.open", refuse)
    cache.keep(PART, memoryview(b"abcd"))
    assert os.strerror(number) in cache.complaint
    assert not cache.of_use()
    refuses.clear()
    assert cache.of_use()
    assert cache.complaint == ""
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []
    cache.keep(PART, memoryview(b"abcd"))
    assert read(cache) == b"abcd"


def test_a_long_download_tries_a_full_cache_again_after_a_while(cache, monkeypatch):
    monkeypatch.setattr("stageline_sources.cache._AGAIN_SECONDS", 0.0)
    cache.folder /= "file"
    cache.folder.write_text("in its place")
    cache.keep(PART, memoryview(b"abcd"))
    assert cache.complaint
    cache.folder.unlink()
    cache.keep(PART, memoryview(b"abcd"))
    assert (cache.complaint, read(cache)) == ("", b"abcd")


@pytest.mark.parametrize("name", ["../../etc", "a" * 4000, "\n", ".hidden", "模型"])
def test_whatever_a_file_is_called_its_parts_stay_in_the_folder(cache, name):
    part = PART._replace(file=name)
    cache.keep(part, memoryview(b"abcd"))
    assert not cache.complaint
    assert read(cache, part) == b"abcd"
    assert entry(cache).parent.parent == cache.folder


# A stage


def same(one, two):
    one, two = one._cut.model.state_dict(), two._cut.model.state_dict()
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_stage_that_starts_again_on_its_node_asks_for_nothing(hub, cache):
    first = load(PINNED, CUT, cache=cache)
    assert sum(hub.served.values()) > first.total_bytes
    hub.served.clear()
    hub.refuse["*"] = (401, "RepoNotFound")
    reports = []
    again = load(
        PINNED, CUT, cache=PartCache(cache.folder), progress=lambda *told: reports.append(told)
    )
    assert hub.served == {}
    same(first, again)
    assert reports[0] == (0, first.total_bytes)
    assert reports[-1] == (first.total_bytes, first.total_bytes)


def test_another_cut_of_the_model_downloads_only_what_nobody_has_had(hub, cache):
    load(PINNED, (0, 3), cache=cache)
    hub.served.clear()
    cut = load(PINNED, (2, 5), cache=cache)
    sent = sum(hub.served.values())
    assert sent == cut.total_bytes - load(PINNED, (2, 3), cache=cache).total_bytes


def test_a_damaged_part_is_downloaded_again_and_no_other(hub, cache):
    first = load(PINNED, CUT, cache=cache)
    hub.served.clear()
    parts = [path for path in cache.folder.rglob("*-*") if path.is_file()]
    spoilt = max(parts, key=lambda path: path.stat().st_size)
    size = spoilt.stat().st_size
    with spoilt.open("r+b") as file:
        file.write(b"\xff\xff\xff\xff")
    again = load(PINNED, CUT, cache=PartCache(cache.folder))
    same(first, again)
    sent = sum(hub.served.values())
    assert 0 < sent < size, f"{sent:,} bytes were sent for a part of {size:,} with its checksum"
    hub.served.clear()
    load(PINNED, CUT, cache=PartCache(cache.folder))
    assert hub.served == {}, "what was fetched anew was not kept"


def test_a_branch_that_moved_is_read_anew(hub, cache):
    load("hf://owner/model", CUT, cache=cache)
    hub.served.clear()
    load("hf://owner/model", CUT, cache=cache)
    sent = {name: size for name, size in hub.served.items() if name.endswith("safetensors")}
    assert sent, "what main stands for was not asked"
    assert max(sent.values()) <= 65536, f"weights of the same content were sent again: {sent}"


def test_of_a_bucket_only_headers_are_read_again(tmp_path, monkeypatch):
    with buckets.serving(buckets.Bucket()) as bucket:
        for name, value in {
            "AWS_ENDPOINT_URL": bucket.url, "AWS_ACCESS_KEY_ID": "AKIAREADER",
            "AWS_SECRET_ACCESS_KEY": "do-not-tell", "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        folder = zoo.checkpoint("llama")
        bucket.upload(folder, "llama")
        first = load("s3://models/llama", CUT, cache=PartCache(tmp_path))
        bucket.served.clear()
        again = load("s3://models/llama", CUT, cache=PartCache(tmp_path))
        same(first, again)
        sent = {name: size for name, size in bucket.served.items() if name.endswith("safetensors")}
        assert sent, "that the objects are the same was not asked"
        assert max(sent.values()) <= 65536, f"weights were sent again: {sent}"


def test_a_cache_that_cannot_be_written_is_done_without(hub, tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache = PartCache(tmp_path / "file")
    stage = load(PINNED, CUT, cache=cache)
    same(stage, load(PINNED, CUT))
    assert cache.complaint.startswith(f"the cache in {tmp_path}/file cannot be ")
    assert "\n" not in cache.complaint


def test_a_pipeline_serves_without_its_cache_and_says_so(hub, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with local_pipeline(PINNED, (3, 3), cache=str(tmp_path / "file")) as pipeline:
        report = pipeline.wait_ready()
    assert len(report.stages) == 2
    for stage in report.stages:
        assert stage.state == pb.SERVING
        assert stage.loaded_bytes == stage.total_bytes > 0
        assert stage.error.startswith(f"the cache in {tmp_path}/file cannot be ")


def test_a_pipeline_says_no_more_of_its_cache_when_it_can_be_written(hub, tmp_path):
    (tmp_path / "file").write_text("no folder")
    timing = replace(QUICK, complaint=0.05)
    cut = {"cache": str(tmp_path / "file"), "timing": timing}
    with local_pipeline(PINNED, (3, 3), **cut) as pipeline:
        before = pipeline.wait_ready()
        assert all(stage.error for stage in before.stages)
        (tmp_path / "file").unlink()
        after = pipeline.wait_until(
            lambda report: not any(stage.error for stage in report.stages), "the complaint's end"
        )
    assert [stage.incarnation for stage in after.stages] == [
        stage.incarnation for stage in before.stages
    ]
