"""What a profile needs of a model on the Hugging Face hub: its JSON files and headers, no weights.

They are put into a folder that looks like the model's own: JSON whole, and each safetensors file
with its header and its real size, a hole where the weights would be. So whatever is read of a
folder can be read of a model that is elsewhere, and is checked in the same way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers, http_stream_backoff

from stageline_api.uri import check_uri
from stageline_worker.model.checkpoint import (
    INDEX,
    MAX_HEADER,
    MAX_JSON,
    SINGLE,
    read_index,
)
from stageline_worker.model.errors import CheckpointError

ENDPOINT: str = constants.ENDPOINT  # $HF_ENDPOINT, or the public hub
_SCHEME = "hf://"
_FIRST = 256 << 10  # bytes; most headers are shorter
_MAX_FILES = 10_000
_AT_ONCE = 8
_SECONDS = 30.0
_RETRIES = 2
_ERROR_CODE = "X-Error-Code"
_COMMIT = "X-Repo-Commit"


@dataclass(frozen=True, slots=True)
class _Repository:
    uri: str
    name: str
    revision: str


def fetch_headers(uri: str, folder: Path) -> None:
    """Fill `folder` with what can be known of hf://owner/model@revision without its weights.

    HF_TOKEN and HF_ENDPOINT are honoured. Raises CheckpointError.
    """
    try:
        check_uri(uri)
    except ValueError as error:
        raise CheckpointError(f"the model's address {error}") from None
    name, _, revision = uri.removeprefix(_SCHEME).partition("@")
    repository = _Repository(uri, name, revision or "main")
    # It logs each try, and the last one's error is told anyway.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    commit = _fetch(repository, "config.json", folder)
    if commit is None:
        raise CheckpointError(f"{uri} is not a model: it has no config.json")
    # A branch may move meanwhile: all files are those of one commit.
    repository = replace(repository, revision=commit)
    if _fetch(repository, "modules.json", folder) is not None:
        for path in _module_folders(folder / "modules.json"):
            _fetch(repository, f"{path}/config.json", folder)
    names = [SINGLE]
    if _fetch(repository, INDEX, folder) is not None:
        names = sorted(set(read_index(folder).values()))
    if len(names) > _MAX_FILES:
        raise CheckpointError(f"{uri}: {INDEX} names {len(names)} files, it cannot be right")
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="hub") as pool:
        list(pool.map(lambda name: _fetch_header(repository, name, folder), names))


def _fetch(repository: _Repository, name: str, folder: Path) -> str | None:
    """A whole file, and the commit that it is of; None when the model has no such file."""
    with _opened(repository, name) as response:
        if response is None:
            return None
        data = _read(response, MAX_JSON + 1)
        commits = [hop.headers.get(_COMMIT) for hop in (*response.history, response)]
    if len(data) > MAX_JSON:
        raise CheckpointError(f"{repository.uri}: {name} has more than 100 MiB, not right")
    _keep(repository, name, folder, data, len(data))
    return next(filter(None, commits), repository.revision)


def _fetch_header(repository: _Repository, name: str, folder: Path) -> None:
    with _opened(repository, name, (0, _FIRST)) as response:
        if response is None:
            return  # whoever reads the folder says that it is missing
        head, total = _read(response, _FIRST), _total(repository, name, response)
    length = 8 + int.from_bytes(head[:8], "little")
    if len(head) < length <= min(total, MAX_HEADER):
        with _opened(repository, name, (len(head), length)) as response:
            if response is None or response.status_code != httpx2.codes.PARTIAL_CONTENT:
                raise CheckpointError(
                    f"{repository.uri}: the hub does not serve {name} in parts; download the "
                    "model and give file:///path/to/its/folder"
                )
            head += _read(response, length - len(head))
    _keep(repository, name, folder, head[:length], total)


def _total(repository: _Repository, name: str, response: httpx2.Response) -> int:
    """Size of the file that the response is of, or of a part of."""
    if response.status_code == httpx2.codes.PARTIAL_CONTENT:
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        size = response.headers.get("Content-Length", "")
    if not size.isascii() or not size.isdigit() or int(size) >= 1 << 62:
        raise CheckpointError(f"{repository.uri}: the hub does not say how long {name} is")
    return int(size)


def _read(response: httpx2.Response, limit: int) -> bytes:
    """The body's first bytes, and no more of it than a buffer beyond."""
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) >= limit:
            break
    return bytes(data[:limit])


@contextmanager
def _opened(
    repository: _Repository, name: str, part: tuple[int, int] | None = None
) -> Iterator[httpx2.Response | None]:
    """A response with the file, or with its bytes [begin, end); None when there is none."""
    url = hf_hub_url(repository.name, name, revision=repository.revision, endpoint=ENDPOINT)
    headers = {**build_hf_headers(library_name="stageline"), "Accept-Encoding": "identity"}
    if part is not None:
        headers["Range"] = f"bytes={part[0]}-{part[1] - 1}"
    try:
        with http_stream_backoff(
            "GET",
            url,
            max_retries=_RETRIES,
            headers=headers,
            timeout=_SECONDS,
            follow_redirects=True,
        ) as response:
            yield response if _is_there(repository, name, response) else None
    except HfHubHTTPError as error:  # after the last try
        raise _refusal(repository, name, error.response) from None
    except OfflineModeIsEnabled:
        raise CheckpointError(
            f"{repository.uri} cannot be read: HF_HUB_OFFLINE is set; unset it, or give file:// "
            "and a folder"
        ) from None
    except (httpx2.HTTPError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{repository.uri} cannot be read: no answer from {ENDPOINT} ({reason}); "
            "the pod may need a proxy, or HF_ENDPOINT"
        ) from None


def _is_there(repository: _Repository, name: str, response: httpx2.Response) -> bool:
    if response.status_code == httpx2.codes.NOT_FOUND:
        code = response.headers.get(_ERROR_CODE)
        if code not in ("RepoNotFound", "RevisionNotFound"):
            return False
    if response.is_error:
        raise _refusal(repository, name, response)
    return True


def _refusal(repository: _Repository, name: str, response: httpx2.Response) -> CheckpointError:
    """What the hub means with its status."""
    uri, code = repository.uri, response.headers.get(_ERROR_CODE)
    has_token = "authorization" in response.request.headers
    owner = "the owner of HF_TOKEN" if has_token else "nobody without a token in HF_TOKEN"
    match response.status_code:
        case _ if code == "RevisionNotFound":
            return CheckpointError(f"{uri}: the model has no revision {repository.revision}")
        case _ if code == "GatedRepo":
            return CheckpointError(
                f"{uri} is gated, and {owner} may read it: ask for access at "
                f"{ENDPOINT}/{repository.name}"
            )
        case 401 | 404:
            return CheckpointError(
                f"{uri} is not on {ENDPOINT}, or {owner} may read it: check its name and the token"
            )
        case 403:
            return CheckpointError(f"{uri}: {ENDPOINT} forbids it to {owner}")
        case status:
            return CheckpointError(f"{uri} cannot be read: {ENDPOINT} answered {status} for {name}")


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


def _keep(repository: _Repository, name: str, folder: Path, head: bytes, total: int) -> None:
    """A file of `total` bytes that begins with `head`."""
    assert _is_inside(name), name
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(total)
    except OSError as error:  # two names in each other's way, one too long, a disk that is full
        raise CheckpointError(f"{repository.uri}: cannot keep {name}: {error.strerror}") from None
