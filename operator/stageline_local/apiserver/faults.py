"""Ready-made trouble for `ApiServer.faults`: what real API servers do to their clients."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from stageline_local.apiserver.errors import Refusal

Fault = Callable[[web.Request], web.Response | None]
"""Answers a request in the server's place, or None to let it pass."""
Which = Callable[[web.Request], bool]


def every_write(request: web.Request) -> bool:
    """Requests that change something."""
    return request.method in ("POST", "PUT", "PATCH", "DELETE")


def every_watch(request: web.Request) -> bool:
    """Requests that begin a watch."""
    return request.query.get("watch", "").lower() in ("true", "1")


def times(count: int, fault: Fault) -> Fault:
    """`fault` until it has struck `count` times."""
    left = [count]

    def strike(request: web.Request) -> web.Response | None:
        response = fault(request) if left[0] > 0 else None
        left[0] -= response is not None
        return response

    return strike


def refuse(which: Which, code: int, reason: str, message: str, **headers: str) -> Fault:
    """Answer with this status, as for 403, 409 or 500."""

    def strike(request: web.Request) -> web.Response | None:
        if not which(request):
            return None
        status = Refusal(code, reason, message).status()
        return web.json_response(status, status=code, headers=headers)

    return strike


def conflict(which: Which = every_write) -> Fault:
    """409: somebody else was faster."""
    message = (
        "Operation cannot be fulfilled: the object has been modified; "
        "please apply your changes to the latest version and try again"
    )
    return refuse(which, 409, "Conflict", message)


def too_many_requests(which: Which, retry_after: int = 1) -> Fault:
    """429: come back in so many seconds."""
    message = "too many requests, please try again later"
    return refuse(which, 429, "TooManyRequests", message, **{"Retry-After": str(retry_after)})


def internal_error(which: Which) -> Fault:
    """500: etcd is in trouble."""
    return refuse(which, 500, "InternalError", "etcdserver: request timed out")


def gone(which: Which = every_watch) -> Fault:
    """410: the history does not reach back so far."""
    return refuse(which, 410, "Expired", "too old resource version")


def reset(which: Which) -> Fault:
    """The connection breaks before there is an answer."""

    def strike(request: web.Request) -> web.Response | None:
        if not which(request):
            return None
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)  # nobody is there to read it

    return strike
