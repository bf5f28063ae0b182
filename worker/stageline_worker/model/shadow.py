"""What can be known of a model elsewhere without its weights: its JSON files and its headers.

They are put into a folder that looks like the model's own: JSON whole, and each safetensors file
with its header and its real size, a hole where the weights would be. So whatever is read of a
folder can be read of a model that is elsewhere, and is checked in the same way.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from stageline_sources import Part, PartCache, Reader, RemoteFile
from stageline_worker.model.checkpoint import INDEX, MAX_HEADER, MAX_JSON, SINGLE, read_index
from stageline_worker.model.errors import CheckpointError

_FIRST = 64 << 10  # bytes; most headers are shorter
_MAX_FILES = 10_000
_AT_ONCE = 8
_SHADOW = "shadow"


def kept_shadow(reader: Reader, folder: Path, cache: PartCache) -> dict[Path, RemoteFile]:
    """`cast_shadow` by way of the cache, where the address names a commit, which never changes."""
    if not reader.source.pinned:
        return cast_shadow(reader, folder)
    part = Part(reader.source.place, _SHADOW, reader.source.pinned, 0, -1)
    if (data := cache.read(part)) is not None:
        return _unpacked(reader.source.uri, data, folder)
    files = cast_shadow(reader, folder)
    cache.keep(part, memoryview(_packed(folder, files)))
    return files


def cast_shadow(reader: Reader, folder: Path) -> dict[Path, RemoteFile]:
    """Fill the empty `folder` with all of a model but its weights; the files that have these.

    Raises CheckpointError and SourceError.
    """
    uri = reader.source.uri
    if not _fetch(reader, "config.json", folder):
        raise CheckpointError(f"{uri} is not a model: it has no config.json")
    _fetch(reader, "generation_config.json", folder)
    if _fetch(reader, "modules.json", folder):
        for path in _module_folders(folder / "modules.json"):
            _fetch(reader, f"{path}/config.json", folder)
    names = [SINGLE]
    if _fetch(reader, INDEX, folder):
        names = sorted(set(read_index(folder).values()))
    if len(names) > _MAX_FILES:
        raise CheckpointError(f"{uri}: {INDEX} names {len(names)} files, it cannot be right")
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="headers") as pool:
        found = list(pool.map(lambda name: _fetch_header(reader, name, folder), names))
    return {folder / file.name: file for file in found if file is not None}


def _fetch(reader: Reader, name: str, folder: Path) -> bool:
    """A whole file; False when the model has no such file."""
    data = reader.whole(name, MAX_JSON)
    if data is None:
        return False
    _keep(reader.source.uri, name, folder, data, len(data))
    return True


def _fetch_header(reader: Reader, name: str, folder: Path) -> RemoteFile | None:
    found = reader.beginning(name, _FIRST)
    if found is None:
        return None  # whoever reads the folder says that it is missing
    file, head = found
    length = 8 + int.from_bytes(head[:8], "little")
    if len(head) < length <= min(file.size, MAX_HEADER):
        head += reader.part(file, len(head), length)
    _keep(reader.source.uri, name, folder, head[:length], file.size)
    return file


def _packed(folder: Path, files: dict[Path, RemoteFile]) -> bytes:
    """The folder as one blob: a line of JSON, then the beginning of each file."""
    told: list[dict[str, Any]] = []
    heads: list[bytes] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, weights = str(path.relative_to(folder)), files.get(path)
        head = path.read_bytes() if weights is None else _head(path)
        heads.append(head)
        entry = {"name": name, "head": len(head), "size": path.stat().st_size}
        told.append(entry if weights is None else {**entry, "version": weights.version})
    return b"\n".join((json.dumps(told).encode(), b"".join(heads)))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(min(int.from_bytes(length, "little"), MAX_HEADER))


def _unpacked(uri: str, data: bytes, folder: Path) -> dict[Path, RemoteFile]:
    told, _, heads = data.partition(b"\n")
    files: dict[Path, RemoteFile] = {}
    begin = 0
    for entry in json.loads(told):
        name, end = entry["name"], begin + entry["head"]
        _keep(uri, name, folder, heads[begin:end], entry["size"])
        begin = end
        if "version" in entry:
            files[folder / name] = RemoteFile(name, entry["size"], entry["version"])
    return files


def _module_folders(path: Path) -> list[str]:
    """Folders of a sentence-transformers model; whether modules.json is right is told later."""
    try:
        modules = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return []
    entries: list[Any] = modules if isinstance(modules, list) else []
    paths = [entry.get("path") for entry in entries[:100] if isinstance(entry, dict)]
    return [path for path in paths if isinstance(path, str) and path and _is_inside(path)]


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _keep(uri: str, name: str, folder: Path, head: bytes, total: int) -> None:
    """A file of `total` bytes that begins with `head`."""
    assert _is_inside(name), name
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(total)
    except OSError as error:  # two names in each other's way, one too long, a disk that is full
        raise CheckpointError(
            f"{uri}: {name} cannot be kept in {folder.parent}: {error.strerror}"
        ) from None
