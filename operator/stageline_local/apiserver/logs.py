"""`kubectl logs`: the file that a container writes, from the start or its end, and as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from stageline_local.apiserver.errors import bad_request
from stageline_local.apiserver.kinds import Object

LogPath = Callable[[str, str, str, bool], Path | None]
"""Of namespace, pod, container and whether the life before the current one is meant."""

_CHUNK: Final = 64 * 1024
_LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class LogRequest:
    """What a client wants to read."""

    container: str
    previous: bool
    follow: bool
    tail: int | None
    """Lines from the end; None for all."""
    limit: int | None
    """Bytes at most."""


def requested(pod: Object, query: dict[str, str]) -> LogRequest:
    """The request that is in a query. Refusal (400) if it cannot be met."""
    name = pod["metadata"]["name"]
    names = [container["name"] for container in pod["spec"].get("containers", ())]
    container = query.get("container", "")
    if not container and len(names) > 1:
        raise bad_request(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
        )
    container = container or names[0]
    if container not in names:
        raise bad_request(f"container {container} is not valid for pod {name}")
    return LogRequest(
        container,
        _is_true(query.get("previous")),
        _is_true(query.get("follow")),
        _number(query, "tailLines"),
        _number(query, "limitBytes"),
    )


async def serve(
    request: web.Request, wanted: LogRequest, path: Path, ended: Callable[[], bool]
) -> web.StreamResponse:
    """The log at `path`; a client that follows is served until `ended`."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    start = await asyncio.to_thread(_start, path, wanted.tail)
    sent = 0
    while True:
        over = ended() or not wanted.follow  # asked first: what came before the end is still read
        chunk = await asyncio.to_thread(_read, path, start + sent)
        if wanted.limit is not None:
            chunk = chunk[: wanted.limit - sent]
        if chunk:
            await response.write(chunk)
            sent += len(chunk)
        elif over or sent == wanted.limit:
            return response
        else:
            await asyncio.sleep(_LOOK_SECONDS)


def _start(path: Path, tail: int | None) -> int:
    """Where the last `tail` lines begin."""
    if tail is None:
        return 0
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    return sum(map(len, lines[: max(len(lines) - tail, 0)]))


def _read(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(_CHUNK)
    except FileNotFoundError:  # the pod is gone, and its files
        return b""


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in ("true", "1")


def _number(query: dict[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise bad_request(f"{name} must be a number that is not negative, not {text!r}")
    return int(text)
