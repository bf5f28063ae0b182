"""A model folder spoiled in every way, and the words with which it must be refused."""

from __future__ import annotations

import json
import shutil
import struct

from safetensors.torch import load_file, save_file

INDEX = "model.safetensors.index.json"


def _edit_json(path, **changes):
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **changes}))


def shard_of(folder, tensor="model.layers.3.mlp.up_proj.weight"):
    """The file that holds a tensor."""
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][tensor]


def _edit_tensors(folder, edit, tensor="model.layers.3.mlp.up_proj.weight"):
    """Let `edit` change the tensors of the shard that holds `tensor`; keep the index true."""
    file = shard_of(folder, tensor)
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    weights = json.loads((folder / INDEX).read_text())["weight_map"]
    weights = {name: shard for name, shard in weights.items() if shard != file.name}
    _edit_json(folder / INDEX, weight_map={**weights, **dict.fromkeys(tensors, file.name)})


def _edit_header(folder, edit):
    file = shard_of(folder)
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
    shard_of(folder).unlink()


def _truncated(folder):
    file = shard_of(folder)
    file.write_bytes(file.read_bytes()[:-1000])


def _empty_shard(folder):
    shard_of(folder).write_bytes(b"")


def _huge_header(folder):
    shard_of(folder).write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def _header_not_json(folder):
    shard_of(folder).write_bytes(struct.pack("<Q", 4) + b"\xff\xfe{}")


def _header_nested(folder):
    nested = b"[" * 200_000
    shard_of(folder).write_bytes(struct.pack("<Q", len(nested)) + nested)


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
    shutil.copy(shard_of(folder), folder.parent / "elsewhere.safetensors")
    _edit_json(folder / INDEX, weight_map={"a": "../elsewhere.safetensors"})


def _absolute_path(folder):
    shutil.copy(shard_of(folder), folder.parent / "elsewhere.safetensors")
    _edit_json(folder / INDEX, weight_map={"a": str(folder.parent / "elsewhere.safetensors")})


def _link_outside(folder):
    file = shard_of(folder)
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
    _edit_json(folder / INDEX, weight_map={**weights, "extra.weight": shard_of(folder).name})


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
