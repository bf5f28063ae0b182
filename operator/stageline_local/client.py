"""A small client of any Kubernetes API server: objects are JSON, places are URL paths.

Errors are one type: `ApiError`, with the HTTP status and the server's own sentence; a server that
cannot be reached is an ApiError with status 0. `follow` never raises: it goes on until it is
closed, through dropped streams, expired resource versions and restarts of the server.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

import aiohttp

from stageline_local.sockets import Sockets

Object = dict[str, Any]
"""A Kubernetes object as JSON."""
Objects = list[Object]

_MERGE: Final = "application/merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"
_REQUEST_SECONDS: Final = 30.0
_WATCH_SECONDS: Final = 300
_FIRST_BACK_OFF: Final = 0.05
_LAST_BACK_OFF: Final = 5.0
_UNREACHABLE: Final = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


class ApiError(Exception):
    """The server refused, or did not answer; the message is its sentence."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        """Of HTTP; 0 when there was no answer."""
        self.reason = reason
        """Kubernetes' word for it, such as NotFound or AlreadyExists."""


class Change(NamedTuple):
    """One thing that has happened to the objects of a place.

    SYNCED, with an empty object, comes once: all that the first list had has been told.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED", "SYNCED"]
    object: Object


class Kind(NamedTuple):
    """A kind of object, and what its place in URLs is called."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def place(self, namespace: str = "", name: str = "") -> str:
        """Path of one object, of a namespace's objects, or of all."""
        root = "/apis/" if "/" in self.api_version else "/api/"
        inside = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"{root}{self.api_version}{inside}/{self.plural}" + (f"/{name}" if name else "")

    def of(self, obj: Object) -> str:
        """Path of this object."""
        return self.place(*key(obj))


POD: Final = Kind("v1", "Pod", "pods")
NODE: Final = Kind("v1", "Node", "nodes", namespaced=False)
SERVICE: Final = Kind("v1", "Service", "services")
CONFIG_MAP: Final = Kind("v1", "ConfigMap", "configmaps")
SECRET: Final = Kind("v1", "Secret", "secrets")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")


def key(obj: Object) -> tuple[str, str]:
    """Namespace (empty where there is none) and name."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


class Client:
    """Speaks to the API server at `url`. Use as an async context manager."""

    def __init__(
        self, url: str, *, token: str = "", ca_file: Path | None = None, agent: str = "stageline"
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = {"User-Agent": agent, "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._tls = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._session: aiohttp.ClientSession | None = None
        self._sockets = Sockets()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0, socket_factory=self._sockets),
            timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()
            await self._sockets.closed()

    async def get(self, path: str) -> Object:
        """One object, or whatever JSON is at this path."""
        return await self._call("GET", path)

    async def list(self, path: str, *, labels: str = "", fields: str = "") -> Objects:
        """The objects of a place that match both selectors."""
        items, _ = await self._list(path, _selectors(labels, fields))
        return items

    async def create(self, path: str, obj: Object) -> Object:
        """Make an object in a place, or a subresource such as a pod's `binding`."""
        return await self._call("POST", path, body=obj)

    async def merge_patch(self, path: str, patch: Object, *, subresource: str = "") -> Object:
        """Change these fields and no others; lists are replaced whole."""
        where = f"{path}/{subresource}" if subresource else path
        return await self._call("PATCH", where, body=patch, content_type=_MERGE)

    async def apply(
        self, path: str, obj: Object, *, manager: str, force: bool = True, subresource: str = ""
    ) -> Object:
        """Server-side apply: the object comes to have these fields, in the manager's name."""
        where = f"{path}/{subresource}" if subresource else path
        query = {"fieldManager": manager, "force": str(force).lower()}
        return await self._call("PATCH", where, query=query, body=obj, content_type=_APPLY)

    async def delete(
        self, path: str, *, grace_seconds: int | None = None, uid: str = "", propagation: str = ""
    ) -> None:
        """Delete an object, only the one with this uid if given. One that is gone is no error."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        if propagation:
            options["propagationPolicy"] = propagation
        try:
            await self._call("DELETE", path, body=options)
        except ApiError as error:
            if error.status != 404:
                raise

    async def follow(
        self, path: str, *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Change]:
        """Every change to the objects of a place, beginning with those that are there.

        What vanished while nobody could watch is told as DELETED, with its last known state.
        """
        following = _Following(self, path, _selectors(labels, fields))
        back_off = _FIRST_BACK_OFF
        while True:
            try:
                async for change in following.changes():
                    back_off = _FIRST_BACK_OFF
                    yield change
                back_off = _FIRST_BACK_OFF
            except ApiError as error:
                following.failed(error)
                back_off = min(back_off * 2, _LAST_BACK_OFF)
            await asyncio.sleep(back_off * random.uniform(0.5, 1.0))

    async def _list(self, path: str, query: dict[str, str]) -> tuple[Objects, str]:
        found = await self._call("GET", path, query=query)
        kind = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
        items = [{**kind, **item} for item in found.get("items") or ()]
        return items, found["metadata"].get("resourceVersion", "")

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        data = None if body is None else json.dumps(body)
        headers = {} if data is None else {"Content-Type": content_type}
        try:
            async with self._open().request(
                method, self.url + path, params=query, data=data, headers=headers
            ) as response:
                content = await response.read()
        except _UNREACHABLE as error:
            raise self._unreachable(error) from error
        return _answer(response.status, content)

    async def _watch(self, path: str, query: dict[str, str]) -> AsyncIterator[Object]:
        """The events of one stream, until it ends."""
        timeout = aiohttp.ClientTimeout(total=_WATCH_SECONDS + 30, sock_connect=_REQUEST_SECONDS)
        try:
            async with self._open().get(self.url + path, params=query, timeout=timeout) as response:
                if response.status != 200:
                    _answer(response.status, await response.read())
                try:
                    rest = b""
                    async for chunk in response.content.iter_any():
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in filter(None, lines):
                            yield json.loads(line)
                finally:
                    _hang_up(response)
        except _UNREACHABLE as error:
            raise self._unreachable(error) from error

    def _open(self) -> aiohttp.ClientSession:
        assert self._session is not None, "the client is used outside of its `async with`"
        return self._session

    def _unreachable(self, error: BaseException) -> ApiError:
        why = str(error) or type(error).__name__
        return ApiError(0, "Unreachable", f"no answer from {self.url}: {why}")


def _hang_up(response: aiohttp.ClientResponse) -> None:
    """A stream that is left before its end goes at once, without TLS saying goodbye."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()


class _Following:
    """Where one `follow` stands: what it has told, and up to which resource version."""

    def __init__(self, client: Client, path: str, query: dict[str, str]) -> None:
        self._client = client
        self._path = path
        self._query = query
        self._version = ""
        self._told: dict[tuple[str, str], Object] = {}
        self._synced = False

    def failed(self, error: ApiError) -> None:
        """A server that has answered with an error does not know our version: list anew."""
        if error.status:
            self._version = ""

    async def changes(self) -> AsyncIterator[Change]:
        """List if need be, then watch, until the stream ends."""
        if not self._version:
            items, version = await self._client._list(self._path, self._query)
            for change in self._since_told(items):
                yield self._tell(change)
            self._version = version
            if not self._synced:
                self._synced = True
                yield Change("SYNCED", {})
        query = {
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        async for event in self._client._watch(self._path, {**self._query, **query}):
            if event["type"] == "ERROR":
                raise _error(event["object"].get("code", 500), event["object"])
            self._version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                yield self._tell(Change(event["type"], event["object"]))

    def _since_told(self, items: list[Object]) -> list[Change]:
        now = {key(item): item for item in items}
        gone = [
            Change("DELETED", obj)
            for where, obj in self._told.items()
            if where not in now or _uid(now[where]) != _uid(obj)
        ]
        there = [
            Change("ADDED" if _uid(self._told.get(where)) != _uid(item) else "MODIFIED", item)
            for where, item in now.items()
            if _version(self._told.get(where)) != _version(item)
        ]
        return gone + there

    def _tell(self, change: Change) -> Change:
        if change.type == "DELETED":
            self._told.pop(key(change.object), None)
        else:
            self._told[key(change.object)] = change.object
        return change


class Mirror:
    """The objects of one place as the server has them, kept current while `run` runs."""

    def __init__(
        self, client: Client, kind: Kind, *, labels: str = "", fields: str = "", namespace: str = ""
    ) -> None:
        self.kind = kind
        self.objects: dict[tuple[str, str], Object] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._where = kind.place(namespace)
        self._selectors = {"labels": labels, "fields": fields}

    async def run(self, on_change: Callable[[Change], None] = lambda change: None) -> None:
        """Until cancelled. `on_change` is called after each change, SYNCED included."""
        async for change in self._client.follow(self._where, **self._selectors):
            if change.type == "SYNCED":
                self.synced.set()
            elif change.type == "DELETED":
                self.objects.pop(key(change.object), None)
            else:
                self.objects[key(change.object)] = change.object
            on_change(change)


def _selectors(labels: str, fields: str) -> dict[str, str]:
    both = {"labelSelector": labels, "fieldSelector": fields}
    return {name: selector for name, selector in both.items() if selector}


def _answer(status: int, content: bytes) -> Object:
    try:
        body = json.loads(content)
    except ValueError:  # a proxy's page, or a plain sentence
        body = {"message": content[:500].decode(errors="replace").strip()}
    if status >= 400:
        raise _error(status, body)
    return dict(body)


def _error(status: int, body: Object) -> ApiError:
    message = body.get("message") or f"the API server answered {status}"
    return ApiError(status, body.get("reason", ""), message)


def _uid(obj: Object | None) -> str:
    return str(obj["metadata"].get("uid", "")) if obj else ""


def _version(obj: Object | None) -> str:
    return str(obj["metadata"].get("resourceVersion", "")) if obj else ""
