"""A model folder as untrusted input: config.json and the headers of its safetensors files.

Nothing is believed before it is compared with the size of the file it speaks of, and nothing of
the weights is read here.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from stageline_worker.model.architectures import Architecture, find
from stageline_worker.model.errors import CheckpointError, UnsupportedModelError

_SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
MAX_HEADER = 100 << 20  # the limit of the safetensors library too
MAX_JSON = 100 << 20
_MAX_DIMENSIONS = 8
# transformers makes lists of these lengths when it reads a config.
_MOST = {"num_hidden_layers": 10_000, "n_layer": 10_000, "num_labels": 1_000_000}
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies. `dtype` is its safetensors name, `offset` is from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int  # bytes

    @property
    def elements(self) -> int:
        """How many values it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model folder whose config and headers have been read and hold together."""

    folder: Path
    architecture: Architecture
    config: Any  # transformers' config object
    tensors: dict[str, StoredTensor] = field(repr=False)

    def read_json(self, name: str) -> Any:
        """A JSON file of the folder, None when it is not there."""
        path = self.folder / name
        return _read_json(self.folder, path) if path.is_file() else None


def open_checkpoint(uri: str) -> Checkpoint:
    """Read config and headers of the model at `uri`: file:///absolute/folder, or a path.

    Raises CheckpointError, or UnsupportedModelError for a model that cannot be served.
    """
    folder = model_folder(uri)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is not a model: it has no config.json")
    raw = _read_json(folder, folder / "config.json")
    if not isinstance(raw, dict):
        raise CheckpointError(f"{folder}/config.json is not an object")
    architecture = find(raw)
    _check_counts(folder, raw)
    tensors = _read_headers(folder)
    return Checkpoint(folder, architecture, _transformers_config(folder), tensors)


def model_folder(uri: str) -> Path:
    """The folder that `uri` names; CheckpointError when there is none that can be read."""
    scheme, separator, path = uri.partition("://")
    if separator and scheme != "file":
        raise CheckpointError(
            f"{uri}: a folder is named by file:///path/to/it; of other places a worker reads "
            "hf://owner/model and s3://bucket/folder"
        )
    if separator and not path.startswith("/"):
        raise CheckpointError(f"{uri}: a file URI has three slashes, as in file:///models/llama")
    name = unquote(path) if separator else uri
    folder = Path(name)
    if not name or "\0" in name or not _is_folder(folder):
        raise CheckpointError(f"{uri}: there is no such folder")
    return folder.resolve()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # longer than a name may be
        return False


def read_header(file: Path) -> Iterator[StoredTensor]:
    """The tensors that a safetensors file declares, every offset checked against its size."""
    total = file.stat().st_size
    with open_exactly(file) as stream:
        length = int.from_bytes(stream.read(8), "little")
        if total < 8 or length > min(total - 8, MAX_HEADER):
            raise CheckpointError(
                f"{file.name} is damaged: its header says {length} bytes, the file has {total}"
            )
        header = _parse(stream.read(length), file)
    start = 8 + length
    end = 0
    entries = [
        _entry(file, name, entry) for name, entry in header.items() if name != "__metadata__"
    ]
    for name, dtype, shape, (begin, stop) in sorted(entries, key=lambda entry: entry[3]):
        if begin < end or stop > total - start:
            raise CheckpointError(
                f"{file.name} is damaged or truncated: {name} lies at bytes {begin} to {stop} of "
                f"{total - start}" + (", inside another tensor" if begin < end else "")
            )
        end = stop
        yield StoredTensor(name, dtype, shape, file, start + begin, stop - begin)


def open_exactly(path: Path) -> BinaryIO:
    """Open for reading what is asked for and no more.

    The kernel reads ahead by up to megabytes, and beyond a header, or beyond a stage's tensors,
    lie those of other stages.
    """
    file = path.open("rb", buffering=0)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    return file


def _entry(file: Path, name: str, entry: Any) -> tuple[str, str, tuple[int, ...], tuple[int, int]]:
    try:
        dtype, shape, (begin, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{file.name} is damaged: its header entry {name} is odd") from None
    numbers = [*shape, begin, stop] if isinstance(shape, list) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise CheckpointError(f"{file.name} is damaged: sizes of {name} are not whole numbers")
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise CheckpointError(f"{file.name}: the dtype {dtype!r} of {name} is unknown")
    if len(shape) > _MAX_DIMENSIONS or math.prod(shape) * _SIZES[dtype] != stop - begin:
        raise CheckpointError(
            f"{file.name} is damaged: {name} of {dtype} {shape} does not take {stop - begin} bytes"
        )
    return name, dtype, tuple(shape), (begin, stop)


def _read_headers(folder: Path) -> dict[str, StoredTensor]:
    promised = read_index(folder) if (folder / INDEX).is_file() else {}
    for name in promised.values():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is incomplete: {name} of its index is missing")
    files = sorted(set(promised.values())) or [_single_file(folder)]
    tensors = {
        tensor.name: tensor
        for name in files
        for tensor in read_header(_inside(folder, folder / name))
    }
    for name, file in promised.items():
        if name not in tensors:
            raise CheckpointError(f"{folder} is incomplete: {file} lacks {name} of the index")
    if not tensors:
        raise CheckpointError(f"the safetensors files of {folder} hold no tensors")
    return tensors


def _single_file(folder: Path) -> str:
    if (folder / SINGLE).is_file():
        return SINGLE
    if found := [name for name in _PICKLES if (folder / name).is_file()]:
        raise CheckpointError(
            f"{folder} has its weights as {found[0]} only, a pickle that could run code; "
            "convert it to safetensors"
        )
    raise CheckpointError(f"{folder} has no weights: no {SINGLE} and no index of it")


def read_index(folder: Path) -> dict[str, str]:
    """File names by tensor name, none of them outside of the folder. Raises CheckpointError."""
    path = folder / INDEX
    index = _read_json(folder, path)
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(x, str) for x in weights.values()):
        raise CheckpointError(f"{path.name} has no weight_map from tensor names to file names")
    for name in weights.values():
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise CheckpointError(f"{path.name} points to {name!r}, outside of the model folder")
    return weights


def _inside(folder: Path, path: Path) -> Path:
    """The real file of `path`. A Hugging Face cache keeps it in blobs, beside snapshots."""
    real = path.resolve()
    roots = [folder]
    if folder.parent.name == "snapshots":
        roots.append(folder.parent.parent / "blobs")
    if not any(real.is_relative_to(root) for root in roots):
        raise CheckpointError(f"{path.name} is a link to {real}, outside of the model folder")
    return real


def _read_json(folder: Path, path: Path) -> Any:
    path = _inside(folder, path)
    if path.stat().st_size > MAX_JSON:
        raise CheckpointError(f"{path.name} has more than 100 MiB, it cannot be right")
    return _parse(path.read_bytes(), path)


def _parse(data: bytes, file: Path) -> Any:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.name} is damaged: not JSON ({error})") from None
    if not isinstance(value, (dict, list)):
        raise CheckpointError(f"{file.name} is damaged: its JSON is not an object")
    return value


def _check_counts(folder: Path, raw: dict[str, Any]) -> None:
    for name, most in _MOST.items():
        count = raw.get(name)
        if count is not None and (type(count) is not int or not 0 < count <= most):
            raise CheckpointError(
                f"{folder}/config.json: {name} is {count!r}, it must be 1 to {most}"
            )


def _transformers_config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a config is checked by running into whatever its fields break
        reason = " ".join(str(error).split())[:300]
        logging.getLogger(__name__).debug("config.json of %s", folder, exc_info=True)
        raise UnsupportedModelError(
            f"transformers does not understand {folder}/config.json: {reason}"
        ) from error
