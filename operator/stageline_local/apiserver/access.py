"""Who may speak to the server: whoever may write here may start processes on this machine."""

from __future__ import annotations

import hmac
from ipaddress import ip_address

from aiohttp import web

from stageline_local.apiserver.errors import Refusal


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


def _is_address(host: str) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    try:
        return name == "localhost" or bool(ip_address(name.strip("[]")))
    except ValueError:
        return False
