"""Kopf as the watch layer of the resource, and the only module that knows it.

Handlers of events put what they hear into the cache and the key into the queue; kopf never retries
them, so nothing else may be done here. There are no handlers of any other sort: they would write
annotations or a finalizer into the user's object.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, cast

import aiohttp
import kopf
from kubernetes.aio.client import Configuration
from pydantic_core import from_json, to_json

from stageline_operator.kinds import PIPELINE_DEPLOYMENT, Object

_ENTER_SECONDS: Final = 0.2
_LEAVE_SECONDS: Final = 0.5
_PAGE: Final = 500
_HEARD: Final = "stageline heard this before"


class NoWatchError(Exception):
    """Watching has ended though nobody stopped it; the text is a sentence."""


class Listener(Protocol):
    """Who is told."""

    def heard(self, event: str | None, obj: Object) -> None:
        """A watch event; None for an object that a list had."""

    def watch_began_anew(self) -> None:
        """A watch lists objects that it has told of before: it may have missed the end of some."""

    async def stop(self) -> None:
        """Kopf ends, and cancels what others left running in its loop."""


async def watch(
    listener: Listener,
    configuration: Configuration,
    namespaces: Sequence[str],
    stop: asyncio.Event,
) -> None:
    """Tell the listener of every event until `stop`. NoWatchError when that is not possible."""
    leave, sessions = asyncio.Event(), _Sessions(configuration)
    stopping = asyncio.create_task(_stop_later(stop, leave), name="stop")
    watching = asyncio.create_task(
        kopf.operator(
            registry=_registry(listener, sessions, leave),
            settings=_settings(),
            clusterwide=not namespaces,
            namespaces=list(namespaces),
            standalone=True,
            stop_flag=leave,
        ),
        name="kopf",
    )
    await asyncio.wait({stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    with _hushed("kopf"):
        await asyncio.wait({watching}, timeout=_LEAVE_SECONDS)
        watching.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        except Exception as error:  # kopf ends with what it could not outlast, of whatever type
            raise NoWatchError(f"the API server cannot be watched: {error}") from error
        finally:
            await sessions.close()


async def _stop_later(stop: asyncio.Event, leave: asyncio.Event) -> None:
    """Kopf leaves at once, except while it finds its way in: then it would try on for seconds."""
    await asyncio.gather(stop.wait(), asyncio.sleep(_ENTER_SECONDS))
    leave.set()


@contextlib.contextmanager
def _hushed(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.watching.chunk_size = _PAGE  # or all there are would be in memory at once
    settings.queueing.idle_timeout = 1.0  # a task per object that had an event; let it go soon
    settings.queueing.exit_timeout = 0.1
    return settings


class _NoDiffBase(kopf.DiffBaseStorage):
    """No handler asks what changed, and kopf would copy every object of every event to know it."""

    def build(
        self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None
    ) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        raise AssertionError("nothing here handles changes")


class _NoProgress(kopf.ProgressStorage):
    """No handler takes more than one try, and kopf would copy all again to hide its notes."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None: ...

    def purge(self, **_: Any) -> None: ...

    def touch(self, **_: Any) -> None: ...

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def _registry(
    listener: Listener, sessions: _Sessions, leave: asyncio.Event
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        return await sessions.open()

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        leave.set()  # kopf has a task that waits for this, and waits 5 seconds for that task
        await listener.stop()

    async def heard(  # the names are kopf's
        *, type: str | None, body: Mapping[str, Any], memo: kopf.Memo, **_: Any
    ) -> None:
        if type is None and _HEARD in memo:
            listener.watch_began_anew()
        memo[_HEARD] = True
        # Read by a parser that has each word in memory once, and not again for each object.
        listener.heard(type, from_json(to_json(dict(body))))

    group, _, version = PIPELINE_DEPLOYMENT.api_version.rpartition("/")
    kopf.on.event(group, version, PIPELINE_DEPLOYMENT.plural, registry=registry)(heard)
    return registry


class _Sessions:
    """Kopf's connections with the API server, ours to close: kopf leaves some open when hurried."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._opened: list[aiohttp.ClientSession] = []

    async def open(self) -> kopf.AiohttpSession:
        """A new one; kopf asks again when a token has run out."""
        info = await _connection_info(self._configuration)
        connector = aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context())
        session = aiohttp.ClientSession(
            connector=connector, headers=info.as_http_headers(), proxy=info.proxy_url
        )
        self._opened.append(session)
        return kopf.AiohttpSession(server=info.server, aiohttp_session=session)

    async def close(self) -> None:
        """All that were opened."""
        for session in self._opened:
            await session.close()


async def _connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    header = await configuration.get_api_key_with_prefix("BearerToken") or ""
    scheme, _, token = header.partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert or None,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file or None,
        private_key_path=configuration.key_file or None,
        scheme=scheme or None,
        token=token or None,
        proxy_url=configuration.proxy or None,
    )
