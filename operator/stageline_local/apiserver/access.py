"""Who may speak to the server: whoever may write here may start processes on this machine."""

from __future__ import annotations

import asyncio
import hmac
import os
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from aiohttp import web

from stageline_local.apiserver.errors import Refusal

_CONNECTIONS: Final = Path("/proc/net/tcp")
_UID: Final = 7
_ROOT: Final = 0


def check(request: web.Request, token: str) -> None:
    """Refusal (401, 403) of who does not know the token, if there is one, and of web pages.

    A page in a browser can send requests to loopback addresses: across origins, which browsers
    tell, or under a name of its own that leads here, which the Host header tells.
    """
    if "Origin" in request.headers or not _is_address(request.host):
        raise Refusal(403, "Forbidden", "this API server does not speak to web pages")
    said = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if token and not hmac.compare_digest(said.encode(), token.encode()):
        raise Refusal(401, "Unauthorized", "Unauthorized")


def check_user(transport: asyncio.BaseTransport, table: Path = _CONNECTIONS) -> None:
    """Refusal (403) of another user of this machine, root apart.

    The kernel tells whose the other end of a connection over loopback is (proc(5), /proc/net/tcp).
    """
    theirs, ours = (transport.get_extra_info(name) for name in ("peername", "sockname"))
    if _user(table, theirs, ours) not in (os.getuid(), _ROOT):
        raise Refusal(403, "Forbidden", "this API server is for the user who started it")


def _user(table: Path, theirs: tuple[str, int], ours: tuple[str, int]) -> int | None:
    """The user who owns the socket at the other end; None when the kernel knows none."""
    ends = [_written(*theirs), _written(*ours)]
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends:
            return int(fields[_UID])
    return None


def _written(host: str, port: int) -> str:
    """As the kernel writes an address: each 4 bytes in the machine's own order, in hexadecimal."""
    packed = int.from_bytes(ip_address(host).packed, sys.byteorder)
    return f"{packed:08X}:{port:04X}"


def _is_address(host: str) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    try:
        return name == "localhost" or bool(ip_address(name.strip("[]")))
    except ValueError:
        return False
