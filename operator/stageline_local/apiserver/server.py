"""The API server as others use it: start it, point clients at its URL, break it on purpose."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from aiohttp import web

from stageline_api.crd import crd
from stageline_local.apiserver import access
from stageline_local.apiserver.api import Api
from stageline_local.apiserver.errors import Refusal
from stageline_local.apiserver.faults import Fault, every_watch
from stageline_local.apiserver.handlers import Handlers
from stageline_local.apiserver.kinds import Object
from stageline_local.apiserver.logs import LogPath

_REMEMBERED: Final = 10_000
_LARGEST_BODY: Final = 3 * 1024 * 1024
_HEALTH: Final = ("/healthz", "/livez", "/readyz")
_LOG: Final = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Request(NamedTuple):
    """One request that was made."""

    method: str
    path: str
    query: str
    agent: str
    """What the client calls itself."""
    manager: str
    """`fieldManager`, empty if not given."""


def _no_logs(namespace: str, pod: str, container: str, previous: bool) -> Path | None:
    return None


class ApiServer:
    """A Kubernetes API server for one machine: objects in memory, HTTP on loopback.

    `log_path` says where a container's log is; `crds` are served from the start; `token` is what
    clients must know, and without one all may come in, whatever token they have. `own_user_only`
    lets in the processes of the user who started it and of root, by loopback on Linux. What the
    server holds outlives `stop` and `start`, but not the object itself.
    """

    def __init__(
        self,
        log_path: LogPath = _no_logs,
        crds: Sequence[Object] | None = None,
        *,
        token: str = "",
        own_user_only: bool = False,
    ) -> None:
        self.api = Api((crd(),) if crds is None else crds)
        self.requests: deque[Request] = deque(maxlen=_REMEMBERED)
        """The latest requests, oldest first."""
        self.faults: list[Fault] = []
        """Asked in turn at each request; the first that gives a response has answered it."""
        self.url = ""
        self._token = token
        self._own_user_only = own_user_only
        self._known: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()
        self._handlers = Handlers(self.api, log_path)
        self._runner: web.AppRunner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watches: set[asyncio.BaseTransport] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; gives the URL. OSError if the port is taken."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._loop = asyncio.get_running_loop()
        # A client that goes away ends its watch at once.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"
        return self.url

    async def stop(self) -> None:
        """Drop every connection and listen no more; the objects stay."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            _drop_connections(runner)
            await runner.cleanup()

    def restart(self) -> None:
        """Drop every connection, as a server that is restarted does. From any thread."""
        self._on_loop(lambda: _drop_connections(self._runner))

    def drop_watches(self) -> None:
        """Drop the connections of all watches. From any thread."""
        self._on_loop(lambda: _abort(*self._watches))

    def compact(self) -> None:
        """Forget the history of changes: a watch from before is told 410. From any thread."""
        self._on_loop(self.api.store.compact)

    def read(self, plural: str, namespace: str = "", group: str | None = None) -> list[Object]:
        """The objects of a resource as they are now, for tests. From any thread.

        `group` is only needed where two groups have resources of the same name.
        """
        for served in self.api.registry:
            if served.kind.plural == plural and group in (None, served.kind.group):
                return self.api.store.all(served.kind, namespace)
        raise KeyError(f"the server has no {plural}")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path in _HEALTH:
            return web.Response(text="ok")
        self._remember(request)
        watching = request.transport if every_watch(request) else None
        if watching is not None:
            self._watches.add(watching)
        try:
            return await self._answer(request)
        except Refusal as refusal:
            return web.json_response(refusal.status(), status=refusal.code)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            # A body that our checks let through and our code cannot take: the server lives on.
            _LOG.exception("%s %s could not be answered", request.method, request.path)
            status = Refusal(500, "InternalError", f"Internal error occurred: {error!r}").status()
            return web.json_response(status, status=500)
        finally:
            if watching is not None:
                self._watches.discard(watching)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        access.check(request, self._token)
        transport = request.transport
        if self._own_user_only and transport is not None and transport not in self._known:
            access.check_user(transport)
            self._known.add(transport)
        for fault in list(self.faults):
            if (response := fault(request)) is not None:
                return response
        return await self._handlers.handle(request)

    def _remember(self, request: web.Request) -> None:
        agent = request.headers.get("User-Agent", "")
        manager = request.query.get("fieldManager", "")
        self.requests.append(
            Request(request.method, request.path, request.query_string, agent, manager)
        )

    def _on_loop(self, action: Callable[[], _Result]) -> _Result:
        """What belongs to the server's loop is done there, whoever asks."""
        loop = self._loop
        if loop is None or not loop.is_running() or _running_loop() is loop:
            return action()

        async def act() -> _Result:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), loop).result(10)


@contextmanager
def served(
    log_path: LogPath = _no_logs,
    crds: Sequence[Object] | None = None,
    *,
    token: str = "",
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[ApiServer]:
    """A server in a thread with a loop of its own: kopf cancels what else runs in its loop."""
    server = ApiServer(log_path, crds, token=token)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="api-server", daemon=True)
    thread.start()

    def run(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(30)

    try:
        run(server.start(host, port))
        yield server
    finally:
        run(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _drop_connections(runner: web.AppRunner | None) -> None:
    server = runner.server if runner is not None else None
    if server is not None:
        _abort(*(connection.transport for connection in server.connections))


def _abort(*transports: asyncio.BaseTransport | None) -> None:
    for transport in transports:
        if isinstance(transport, asyncio.Transport):
            transport.abort()
