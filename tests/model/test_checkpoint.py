"""Which folder is read, how its files are found, and headers as damaged as may be."""

from __future__ import annotations

import shutil
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stageline_worker.model import ModelError, load, profile
from stageline_worker.model.checkpoint import open_checkpoint, read_header
from support import zoo
from support.spoiled import shard_of


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("pvc://models/llama", "a folder is named by file:///path"),
        ("file://models/llama", "three slashes"),
        ("file:///no/such/folder", "no such folder"),
        ("/no/such/folder", "no such folder"),
        ("", "no such folder"),
        ("bad\0name", "no such folder"),
        ("file:///bad%00name", "no such folder"),
        ("file://[", "three slashes"),
    ],
)
def test_a_uri_that_names_no_folder_is_refused(uri, sentence):
    with pytest.raises(ModelError, match=sentence):
        profile(uri)


def test_a_folder_is_found_by_uri_and_by_path(llama):
    spaced = llama.rename(llama.parent / "my llama")
    assert spaced.as_uri().endswith("my%20llama")
    assert profile(spaced.as_uri()) == profile(str(spaced))


def test_links_of_a_hugging_face_cache_are_followed(tmp_path):
    snapshot = tmp_path / "models--x" / "snapshots" / "abc"
    blobs = tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(zoo.checkpoint("llama").iterdir()):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert profile(str(snapshot)) == profile(str(zoo.checkpoint("llama")))


def test_a_file_that_shrinks_while_it_is_read_is_an_error(llama):
    file = shard_of(llama, "model.layers.3.input_layernorm.weight")

    def shrink(done, total):
        if done == 0:
            file.write_bytes(file.read_bytes()[:2000])

    with pytest.raises(ModelError, match="ended in the middle of"):
        load(str(llama), (3, 4), progress=shrink)


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_to_a_header_is_refused_or_harmless(data, tmp_path):
    file = tmp_path / "model.safetensors"
    whole = shard_of(zoo.checkpoint("llama")).read_bytes()
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for _ in range(data.draw(st.integers(0, 4))):
        if broken:
            at = data.draw(st.integers(0, min(header, len(broken)) - 1))
            broken[at] = data.draw(st.integers(0, 255))
    file.write_bytes(broken)
    try:
        tensors = list(read_header(file))
    except ModelError:
        return
    assert all(tensor.offset + tensor.size <= len(broken) for tensor in tensors)


def test_headers_are_read_as_the_library_reads_them():
    from safetensors import safe_open

    for tensor in open_checkpoint(str(zoo.checkpoint("mixtral"))).tensors.values():
        with safe_open(tensor.file, "pt") as file:
            view = file.get_slice(tensor.name)
        assert (view.get_dtype(), tuple(view.get_shape())) == (tensor.dtype, tensor.shape)
