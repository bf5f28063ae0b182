"""A model hub of one model: the endpoints of huggingface.co that serve files, on loopback.

Small files come at once; safetensors files are a redirect to another host, as to the hub's CDN,
which serves ranges and must not be shown the token.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34
NEXT = "decade" + "0" * 34
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_PIECE = 64 << 10
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def in_seconds(seconds: float) -> str:
    """A date as HTTP has it."""
    return formatdate(time.time() + seconds, usegmt=True)


@dataclass
class Hub:
    """`refuse` maps a file name, or * for all, to a status and an X-Error-Code. `busy` has
    statuses and headers that are answered first, one each. After `drop` bytes of a large file the
    connection breaks, `drops` times."""

    folder: Path
    repo: str = "owner/model"
    token: str = ""
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    busy: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    drop: int = 0
    drops: int = 0
    ranges: bool = True
    main: str = COMMIT
    url: str = ""
    served: dict[str, int] = field(default_factory=dict)
    revisions: set[str] = field(default_factory=set)
    leaked: list[str] = field(default_factory=list)
    damage: bool = False
    counting: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body."""
        if self.busy:
            return *self.busy.pop(0), b""
        if path.startswith("/cdn/"):
            if "authorization" in headers:
                self.leaked.append(path)
            return self._file(path.removeprefix("/cdn/"), headers)
        asked = _FILE.fullmatch(path)
        if asked is None:
            return 404, {}, b""
        name = asked["name"]
        if refused := self._refusal(asked, headers):
            return refused[0], {"X-Error-Code": refused[1]}, b""
        self.revisions.add(asked["revision"])
        commit = self.main if asked["revision"] in ("main", "v1") else asked["revision"]
        if name.endswith(".safetensors"):
            cdn = self.url.replace("127.0.0.1", "localhost")
            tag = _sha256(self.folder / name, (self.folder / name).stat().st_mtime_ns)
            told = {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{tag}"'}
            return 302, {**told, "Location": f"{cdn}/cdn/{name}"}, b""
        status, sent, body = self._file(name, headers)
        blob = b"blob %d\0" % len(body) + body
        tag = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
        if self.damage:
            body = body.replace(b"4", b"5", 1)
        return status, {**sent, "X-Repo-Commit": commit, "ETag": f'"{tag}"'}, body

    def _refusal(self, asked: re.Match[str], headers: dict[str, str]) -> tuple[int, str] | None:
        name = asked["name"]
        if refused := self.refuse.get(name) or self.refuse.get("*"):
            return refused
        if asked["repo"] != self.repo:
            return 401, "RepoNotFound"
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            return 401, "GatedRepo"
        if asked["revision"] not in ("main", "v1", self.main, COMMIT):
            return 404, "RevisionNotFound"
        if not (self.folder / name).is_file():
            return 404, "EntryNotFound"
        return None

    def take(self, size: int) -> int:
        """How much of a body of `size` bytes is sent before the connection breaks."""
        with self.counting:
            if not self.drop or not self.drops or size <= self.drop:
                return size
            self.drops -= 1
            return self.drop

    def count(self, name: str, size: int) -> None:
        """Take note of bytes that went out."""
        with self.counting:
            self.served[name] = self.served.get(name, 0) + size

    def _file(self, name: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        size = (self.folder / name).stat().st_size
        asked = _RANGE.fullmatch(headers.get("range", ""))
        if asked is None or not self.ranges:
            return 200, {}, (self.folder / name).read_bytes()
        begin, end = int(asked[1]), min(int(asked[2]) + 1, size)
        with (self.folder / name).open("rb") as file:
            file.seek(begin)
            return 206, {"Content-Range": f"bytes {begin}-{end - 1}/{size}"}, file.read(end - begin)


@cache
def _sha256(path: Path, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at `hub.url`, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, sent, body = hub.answer(self.path, headers)
            self.send_response(status)
            for name, value in {**sent, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            taken = hub.take(len(body))
            for start in range(0, taken, _PIECE):
                piece = body[start : min(start + _PIECE, taken)]
                self.wfile.write(piece)
                hub.count(self.path.rpartition("/")[2], len(piece))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that has read enough hangs up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, name="hub")
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
