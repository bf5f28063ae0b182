"""A model folder that is wrong in any way is refused with a sentence, before weights are read."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from stageline_worker.model import ModelError, load, profile
from stageline_worker.model.checkpoint import open_checkpoint, read_header
from support import zoo

INDEX = "model.safetensors.index.json"


@pytest.fixture
def llama(tmp_path):
    return Path(shutil.copytree(zoo.checkpoint("llama"), tmp_path / "llama"))


def _edit_json(path, **changes):
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **changes}))


def _shard(folder, tensor="model.layers.3.mlp.up_proj.weight"):
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][tensor]


def _edit_tensors(folder, edit, tensor="model.layers.3.mlp.up_proj.weight"):
    """Let `edit` change the tensors of the shard that holds `tensor`; keep the index true."""
    file = _shard(folder, tensor)
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    weights = json.loads((folder / INDEX).read_text())["weight_map"]
    weights = {name: shard for name, shard in weights.items() if shard != file.name}
    _edit_json(folder / INDEX, weight_map={**weights, **dict.fromkeys(tensors, file.name)})


def _edit_header(folder, edit):
    file = _shard(folder)
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    edit(header)
    made = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(made)) + made + data[8 + length :])


def _entry(header):
    return header["model.layers.3.mlp.up_proj.weight"]


def _no_config(folder):
    (folder / "config.json").unlink()


def _pickle_only(folder):
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def _no_weights(folder):
    for file in folder.glob("model*"):
        file.unlink()


def _missing_shard(folder):
    _shard(folder).unlink()


def _truncated(folder):
    file = _shard(folder)
    file.write_bytes(file.read_bytes()[:-1000])


def _empty_shard(folder):
    _shard(folder).write_bytes(b"")


def _huge_header(folder):
    _shard(folder).write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def _header_not_json(folder):
    _shard(folder).write_bytes(struct.pack("<Q", 4) + b"\xff\xfe{}")


def _header_nested(folder):
    nested = b"[" * 200_000
    _shard(folder).write_bytes(struct.pack("<Q", len(nested)) + nested)


def _lying_shape(folder):
    _edit_header(folder, lambda header: _entry(header).update(shape=[1 << 40, 1 << 40]))


def _lying_offsets(folder):
    _edit_header(folder, lambda header: _entry(header).update(data_offsets=[0, 1 << 50]))


def _overlapping(folder):
    def overlap(header):
        first, second = [entry for name, entry in header.items() if name != "__metadata__"][:2]
        first.update({key: second[key] for key in ("dtype", "shape", "data_offsets")})

    _edit_header(folder, overlap)


def _negative_shape(folder):
    _edit_header(folder, lambda header: _entry(header).update(shape=[-128, -64]))


def _unknown_dtype(folder):
    _edit_header(folder, lambda header: _entry(header).update(dtype="F3"))


def _odd_entry(folder):
    _edit_header(folder, lambda header: header.update({"model.layers.3.mlp.up_proj.weight": 7}))


def _parent_path(folder):
    shutil.copy(_shard(folder), folder.parent / "elsewhere.safetensors")
    _edit_json(folder / INDEX, weight_map={"a": "../elsewhere.safetensors"})


def _absolute_path(folder):
    shutil.copy(_shard(folder), folder.parent / "elsewhere.safetensors")
    _edit_json(folder / INDEX, weight_map={"a": str(folder.parent / "elsewhere.safetensors")})


def _link_outside(folder):
    file = _shard(folder)
    moved = folder.parent / "elsewhere.safetensors"
    file.rename(moved)
    file.symlink_to(moved)


def _config_link_outside(folder):
    moved = folder.parent / "elsewhere.json"
    (folder / "config.json").rename(moved)
    (folder / "config.json").symlink_to(moved)


def _index_without_map(folder):
    (folder / INDEX).write_text("{}")


def _index_promises_more(folder):
    weights = json.loads((folder / INDEX).read_text())["weight_map"]
    _edit_json(folder / INDEX, weight_map={**weights, "extra.weight": _shard(folder).name})


def _missing_tensor(folder):
    _edit_tensors(folder, lambda tensors: tensors.pop("model.layers.3.mlp.up_proj.weight"))


def _missing_layer(folder):
    _edit_json(folder / "config.json", num_hidden_layers=7)


def _wrong_shape(folder):
    def cut(tensors):
        name = "model.layers.3.mlp.up_proj.weight"
        tensors[name] = tensors[name][:100].contiguous()

    _edit_tensors(folder, cut)


def _config_not_json(folder):
    (folder / "config.json").write_text("{")


def _config_list(folder):
    (folder / "config.json").write_text("[]")


def _unknown_type(folder):
    _edit_json(folder / "config.json", model_type="no_such_model")


def _unknown_class(folder):
    _edit_json(folder / "config.json", architectures=["LlamaForQuestionAnswering"])


def _no_class(folder):
    _edit_json(folder / "config.json", architectures=None)


def _absurd_layers(folder):
    _edit_json(folder / "config.json", num_hidden_layers=1_000_000_000)


def _absurd_labels(folder):
    _edit_json(folder / "config.json", num_labels=1_000_000_000)


def _encoder_decoder(folder):
    _edit_json(folder / "config.json", architectures=["T5Model"], is_encoder_decoder=True)


def _not_a_chain(folder):
    _edit_json(folder / "config.json", architectures=["Gemma3nForCausalLM"])


def _text_for_a_number(folder):
    _edit_json(folder / "config.json", hidden_size="many")


def _heads_do_not_fit(folder):
    _edit_json(folder / "config.json", num_attention_heads=0)


def _quantized(folder):
    _edit_json(folder / "config.json", quantization_config={"quant_method": "fp8"})


BAD = {
    _no_config: "it has no config.json",
    _pickle_only: "convert it to safetensors",
    _no_weights: "has no weights",
    _missing_shard: "of its index is missing",
    _truncated: "is damaged or truncated",
    _empty_shard: "is damaged",
    _huge_header: "its header says 4611686018427387904 bytes",
    _header_not_json: "not JSON",
    _header_nested: "not JSON",
    _lying_shape: "does not take",
    _lying_offsets: "does not take",
    _overlapping: "inside another tensor",
    _negative_shape: "are not whole numbers",
    _unknown_dtype: "the dtype 'F3'",
    _odd_entry: "is odd",
    _parent_path: "index.json points to '../elsewhere.safetensors', outside",
    _absolute_path: "index.json points to '/",
    _link_outside: "outside of the model folder",
    _config_link_outside: "outside of the model folder",
    _index_without_map: "has no weight_map",
    _index_promises_more: "lacks extra.weight",
    _missing_tensor: "lacks model.layers.3.mlp.up_proj.weight",
    _missing_layer: "no tensors for layer 6 of the 7 layers",
    _wrong_shape: "model.layers.3.mlp.up_proj.weight is [100, 64] in the checkpoint",
    _config_not_json: "not JSON",
    _config_list: "is not an object",
    _unknown_type: "no_such_model",
    _unknown_class: "LlamaForQuestionAnswering is not supported",
    _no_class: 'add "architectures"',
    _absurd_layers: "must be 1 to 10000",
    _absurd_labels: "must be 1 to 1000000",
    _encoder_decoder: "T5Model is an encoder-decoder, not a chain of layers",
    _not_a_chain: "Gemma3nForCausalLM cannot be cut into stages: each layer also reads",
    _text_for_a_number: "hidden_size",
    _heads_do_not_fit: "config.json",
    _quantized: "the weights are quantized (fp8)",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_bad_checkpoint_is_refused_by_profile_and_load_with_one_sentence(spoil, llama):
    spoil(llama)
    refusals = []
    for attempt in (profile, lambda uri: load(uri, (0, 2))):
        with pytest.raises(ModelError) as refusal:
            attempt(llama.as_uri())
        refusals.append(str(refusal.value))
    assert refusals[0] == refusals[1]
    assert BAD[spoil] in refusals[0]
    assert "\n" not in refusals[0], "a refusal is one line"
    assert "Traceback" not in refusals[0]


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
    file = _shard(llama, "model.layers.3.input_layernorm.weight")

    def shrink(done, total):
        if done == 0:
            file.write_bytes(file.read_bytes()[:2000])

    with pytest.raises(ModelError, match="ended in the middle of"):
        load(str(llama), (3, 4), progress=shrink)


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_to_a_header_is_refused_or_harmless(data, tmp_path):
    file = tmp_path / "model.safetensors"
    whole = _shard(zoo.checkpoint("llama")).read_bytes()
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
