"""hf://owner/model@revision: a repository of the Hugging Face hub, or of what speaks like it."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx2
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers, get_session

from stageline_sources.errors import Interruption, SourceError
from stageline_sources.patience import asked_seconds
from stageline_sources.source import Body, Check

ENDPOINT: str = constants.ENDPOINT  # $HF_ENDPOINT, or the public hub
_SECONDS = 30.0
_LATER = {408, 425, 429, 500, 502, 503, 504}
_ERROR_CODE = "X-Error-Code"
_COMMIT = "X-Repo-Commit"
_ETAG = "X-Linked-Etag"  # of the file, where ETag may be that of its storage
_HASH = re.compile(r"[0-9a-f]{7,64}")
_COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
_RESET = re.compile(r"\bt=(\d{1,6})\b")


class Hub:
    """A model's repository. HF_TOKEN and HF_ENDPOINT are honoured.

    A branch may move meanwhile: all files are those of the commit that the first one was of.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._name, _, revision = uri.removeprefix("hf://").partition("@")
        self._revision = revision or "main"
        self._commit = self.pinned
        # It logs what it is about to retry, and what fails in the end is told anyway.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

    @property
    def place(self) -> str:
        """Where its files are, the same for every revision."""
        return f"{ENDPOINT}/{self._name}"

    @property
    def pinned(self) -> str:
        """The commit, where the address names it in full."""
        return self._revision if _COMMIT_HASH.fullmatch(self._revision) else ""

    @property
    def commit(self) -> str:
        """The commit that the revision stood for."""
        return self._commit

    @contextmanager
    def open(
        self, name: str, part: tuple[int, int] | None = None, version: str = ""
    ) -> Iterator[Body | None]:
        """One try. Files of a commit never change, so `version` needs no check."""
        revision = self._commit or self._revision
        url = hf_hub_url(self._name, name, revision=revision, endpoint=ENDPOINT)
        # A compressed part could not be told from its place in the file.
        headers = {**build_hf_headers(library_name="stageline"), "Accept-Encoding": "identity"}
        if part is not None:
            headers["Range"] = f"bytes={part[0]}-{part[1] - 1}"
        try:
            with get_session().stream(
                "GET", url, headers=headers, timeout=_SECONDS, follow_redirects=True
            ) as response:
                yield self._body(name, response, part) if self._is_there(name, response) else None
        except OfflineModeIsEnabled:
            raise SourceError(
                f"{self.uri} cannot be read: HF_HUB_OFFLINE is set; unset it, or give file:// and "
                "a folder"
            ) from None
        except (httpx2.HTTPError, OSError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise Interruption(
                f"no answer from {ENDPOINT} ({reason}); the pod may need a proxy, or HF_ENDPOINT"
            ) from None

    def _body(self, name: str, response: httpx2.Response, part: tuple[int, int] | None) -> Body:
        hops = [*response.history, response]
        commits = (hop.headers.get(_COMMIT, "") for hop in hops)
        self._commit = self._commit or next(filter(_HASH.fullmatch, commits), "")
        # Elsewhere ETag is whatever the storage there makes of it.
        own = [hop.headers.get("ETag") for hop in hops if hop.url.host == hops[0].url.host]
        tags = (*(hop.headers.get(_ETAG) for hop in hops), own[-1])
        tag = next(filter(None, tags), "").strip('"')
        size = self._size(name, response, part)
        return Body(size, tag, response.iter_raw(), None if part else _check(tag))

    def _size(self, name: str, response: httpx2.Response, part: tuple[int, int] | None) -> int:
        """Bytes of the whole file."""
        size = response.headers.get("Content-Length", "")
        if part is not None:
            sent, _, size = response.headers.get("Content-Range", "").rpartition("/")
            if response.status_code != httpx2.codes.PARTIAL_CONTENT or not sent.startswith(
                f"bytes {part[0]}-"
            ):
                raise SourceError(
                    f"{self.uri}: {ENDPOINT} does not serve {name} in parts; download the model "
                    "and give file:///path/to/its/folder"
                )
        if not size.isascii() or not size.isdigit() or int(size) >= 1 << 62:
            raise SourceError(f"{self.uri}: {ENDPOINT} does not say how long {name} is")
        return int(size)

    def _is_there(self, name: str, response: httpx2.Response) -> bool:
        status, code = response.status_code, response.headers.get(_ERROR_CODE)
        if status == httpx2.codes.NOT_FOUND and code not in ("RepoNotFound", "RevisionNotFound"):
            return False
        if status in _LATER:
            raise Interruption(f"{ENDPOINT} answered {status}", _wait(response))
        if response.is_error:
            raise self._refusal(name, response)
        return True

    def _refusal(self, name: str, response: httpx2.Response) -> SourceError:
        """What the hub means with its status."""
        uri, code = self.uri, response.headers.get(_ERROR_CODE)
        if response.history:  # it sent us on, to where its rules about people do not count
            return SourceError(
                f"{uri} cannot be read: {response.url.host}, where {ENDPOINT} keeps {name}, "
                f"answered {response.status_code}"
            )
        has_token = "authorization" in response.request.headers
        owner = "the owner of HF_TOKEN" if has_token else "nobody without a token in HF_TOKEN"
        match response.status_code:
            case _ if code == "RevisionNotFound":
                return SourceError(f"{uri}: the model has no revision {self._revision}")
            case _ if code == "GatedRepo":
                return SourceError(
                    f"{uri} is gated, and {owner} may read it: ask for access at "
                    f"{ENDPOINT}/{self._name}"
                )
            case 401 if has_token and code != "RepoNotFound":
                return SourceError(
                    f"{uri} cannot be read: {ENDPOINT} does not accept the token in HF_TOKEN, it "
                    "may have expired: make a new one"
                )
            case 401 | 404:
                return SourceError(
                    f"{uri} is not on {ENDPOINT}, or {owner} may read it: check its name and the "
                    "token"
                )
            case 403:
                return SourceError(f"{uri}: {ENDPOINT} forbids it to {owner}")
            case status:
                return SourceError(f"{uri} cannot be read: {ENDPOINT} answered {status} for {name}")


def _wait(response: httpx2.Response) -> float | None:
    """Seconds until the next try, as the answer has them: Retry-After, or RateLimit's reset."""
    asked = asked_seconds(response.headers.get("Retry-After", ""), datetime.now(UTC))
    if asked is not None:
        return asked
    reset = _RESET.search(response.headers.get("RateLimit", ""))
    return float(reset[1]) if reset else None


def _check(tag: str) -> Check | None:
    """Of a large file the tag is its SHA-256, of a small one git's own SHA-1 of it."""
    if re.fullmatch(r"[0-9a-f]{64}", tag):
        return lambda data: hashlib.sha256(data).hexdigest() == tag
    if re.fullmatch(r"[0-9a-f]{40}", tag):
        return lambda data: _git_hash(data) == tag
    return None


def _git_hash(data: bytes) -> str:
    head = f"blob {len(data)}\0".encode()
    return hashlib.sha1(head + data, usedforsecurity=False).hexdigest()
