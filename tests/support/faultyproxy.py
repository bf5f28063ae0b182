"""A way to any API server on which everything can go wrong, and on which requests are counted.

Operators under test go this way, so the same faults strike them on whatever server.
"""

import asyncio
import contextlib
import json
import ssl
import threading
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from stageline_local.sockets import Sockets

_SECONDS = 10
_KEPT = ("Accept", "Content-Type")
_REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}


@dataclass(frozen=True)
class Seen:
    """A request that came by, and what was answered."""

    method: str
    path: str
    query: str
    status: int

    @property
    def writes(self):
        return self.method != "GET"


WATCH = "?watch"


@dataclass
class Fault:
    """Answers instead of the server, `times` times, requests that `which(method, path)` names.

    The path of a watch ends with WATCH.
    """

    status: int
    times: int
    which: object
    headers: dict
    message: str = ""


def _is_watch(request):
    return "watch=true" in request.query_string


class FaultyProxy:
    """Listens at `url` in a thread of its own, while used as a context manager."""

    def __init__(self, server):
        self._server = server
        self.seen = []
        self._faults = []
        self._streams = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self):
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_):
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    def fail(self, status, times=1, which=lambda method, path: True, **headers):
        """The next requests of this sort are answered with this status."""
        self._faults.append(Fault(status, times, which, headers))

    def refuse(self, message, which):
        """Requests of this sort are forbidden with this sentence, until the result is called."""
        fault = Fault(403, 1 << 30, which, {}, message)
        self._faults.append(fault)
        return lambda: self._faults.remove(fault)

    def drop_watches(self):
        """Every watch breaks off, as behind a load balancer that lost patience."""
        self._do(self._drop())

    def silence_watches(self):
        """Watches tell no more, though they stay open, as behind a proxy that lost its memory."""
        self._do(self._silence())

    def forget_history(self, change=lambda: None):
        """Every watch ends with 410 after `change`, which it has therefore never told of."""
        self._do(self._silence())
        change()
        self._do(self._expire())

    def writes(self):
        """What came by and changes something, but for Events."""
        return [seen for seen in self.seen if seen.writes and "/events" not in seen.path]

    async def _start(self):
        tls = (
            ssl.create_default_context(cafile=self._server.ca_file)
            if self._server.ca_file
            else None
        )
        self._sockets = Sockets()
        connector = aiohttp.TCPConnector(ssl=tls or True, limit=0, socket_factory=self._sockets)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self):
        await self._drop()
        await self._runner.cleanup()
        await self._session.close()
        await self._sockets.closed()

    async def _handle(self, request):
        asked = (request.method, request.path + WATCH * _is_watch(request))
        fault = next((f for f in self._faults if f.times and f.which(*asked)), None)
        if fault is not None:
            fault.times -= 1
            self._note(request, fault.status)
            return _refusal(fault)
        headers = {name: request.headers[name] for name in _KEPT if name in request.headers}
        if self._server.token:
            headers["Authorization"] = f"Bearer {self._server.token}"
        try:
            async with self._session.request(
                request.method, self._server.url + request.path_qs,
                headers=headers, data=await request.read() or None,
            ) as upstream:  # fmt: skip
                self._note(request, upstream.status)
                return await self._pass_on(request, upstream)
        except aiohttp.ClientError:
            request.transport.abort()
            return web.Response(status=502)

    async def _pass_on(self, request, upstream):
        content = {"Content-Type": upstream.headers.get("Content-Type", "application/json")}
        if not _is_watch(request):
            return web.Response(body=await upstream.read(), status=upstream.status, headers=content)
        response = web.StreamResponse(status=upstream.status, headers=content)
        await response.prepare(request)
        stream = _Stream(request, response)
        self._streams.add(stream)
        try:
            async for chunk in upstream.content.iter_any():
                if not stream.silent:
                    await response.write(chunk)
        finally:
            self._streams.discard(stream)
        return response

    def _note(self, request, status):
        self.seen.append(Seen(request.method, request.path, request.query_string, status))

    async def _drop(self):
        for stream in list(self._streams):
            if stream.request.transport is not None:
                stream.request.transport.abort()

    async def _silence(self):
        for stream in self._streams:
            stream.silent = True

    async def _expire(self):
        body = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired"}
        for stream in [stream for stream in self._streams if stream.silent]:
            with contextlib.suppress(ConnectionError):
                await stream.response.write(
                    json.dumps({"type": "ERROR", "object": body}).encode() + b"\n"
                )
        await asyncio.sleep(0.05)
        await self._drop_silent()

    async def _drop_silent(self):
        for stream in list(self._streams):
            if stream.silent and stream.request.transport is not None:
                stream.request.transport.abort()

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)


class _Stream:
    def __init__(self, request, response):
        self.request, self.response, self.silent = request, response, False


def _refusal(fault):
    reason = _REASONS.get(fault.status, "Forbidden")
    message = fault.message or f"the test says {reason}"
    status = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": fault.status, "reason": reason, "message": message,
    }  # fmt: skip
    return web.json_response(status, status=fault.status, headers=fault.headers)
