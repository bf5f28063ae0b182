"""The API server as the operator uses it: nine calls, and six ways in which they fail.

Preconditions are the API server's own, so no look before the write is needed, and none could be as
safe. An object is *made* by POST: when the name is taken the answer is 409. An object is *brought
back* by server-side apply with the uid that was seen: when another has the name now, or nobody, the
answer is 409 as well. (Measured on kube-apiserver 1.34.)

A ControllerRevision is made by server-side apply too, with resourceVersion 1, which no living
object has, so that a name that is taken is a conflict. Of its data, which may not change, the API
server keeps the very bytes that are posted, and takes any patch of the object for a change of them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from copy import copy
from typing import Any, Final, NamedTuple, Protocol

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException, Configuration
from kubernetes.aio.client.rest import RESTResponse
from pydantic_core import from_json

from stageline_operator.cache import Listing, slim
from stageline_operator.kinds import (
    CONTROLLER_REVISION,
    EVENT,
    PIPELINE_DEPLOYMENT,
    Kind,
    Object,
    kind_of,
)
from stageline_operator.labels import FIELD_MANAGER
from stageline_operator.ownership import as_applied, is_posted

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30)
_SILENCE: Final = aiohttp.ClientTimeout(sock_connect=30, sock_read=90)
"""Of a watch: an API server tells its version every minute, even when nothing happens."""
_PAGE: Final = "500"
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_CONFLICTS: Final = 409
_GONE: Final = 404
_EXPIRED: Final = 410
_BUSY: Final = (401, 429)
_SERVER_ERRORS: Final = 500
_WEBHOOK: Final = "failed calling webhook"
_NO_ANSWER: Final = (aiohttp.ClientError, ApiException, OSError)
_NOBODYS_VERSION: Final = "1"
_UNFORCED: Final = {"fieldManager": FIELD_MANAGER, "force": "false"}
_FORCED: Final = {"fieldManager": FIELD_MANAGER, "force": "true"}
_NO_HEADERS: Final[Mapping[str, str]] = {}

Counter = Callable[[str, str, int], None]
"""Told of each request: its verb, the plural of the kind, the status code (0: no answer)."""


class ClusterError(Exception):
    """The API server did not do what it was asked for; the text is a sentence."""


class Conflict(ClusterError):
    """The object is another, or changed meanwhile: look again."""


class AlreadyExists(ClusterError):
    """There is an object of this name, made by whomever."""


class Gone(ClusterError):
    """There is no such object (any more), or no such namespace or kind."""


class Expired(ClusterError):
    """What happened since that version is not known any more: list again."""


class Refused(ClusterError):
    """Asking again would give the same: the sentence of the server says what is wrong."""


class Busy(ClusterError):
    """No answer, or not now."""

    def __init__(self, sentence: str, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
        """Seconds, as the server asked for; None when it did not say."""


class Change(NamedTuple):
    """What a watch tells."""

    type: str
    """ADDED, MODIFIED, DELETED; or BOOKMARK, which tells the version alone."""
    object: Object


class Cluster(Protocol):
    """What reconciling needs. Every method may raise any ClusterError that it names, and Busy."""

    async def list(
        self, kind: Kind, namespace: str | None, selector: str = "", *, fields: str = ""
    ) -> Listing:
        """All objects of a kind, or those with such labels or fields; namespace None: in all.

        Gone when there is no such kind, Refused.
        """

    def follow(
        self,
        kind: Kind,
        namespace: str | None,
        version: int,
        selector: str = "",
        *,
        fields: str = "",
    ) -> AsyncGenerator[Change]:
        """What happens to objects of a kind after that version, until the server ends it.

        Expired, Gone, Refused.
        """

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """The object; Gone."""

    async def create(self, obj: Object) -> Object:
        """A new object; AlreadyExists, Gone, Refused."""

    async def restore(self, obj: Object, live: Object) -> Object:
        """Every field of `obj` as it says, whoever set it, and none that only an older `obj` had.

        `live` is what was seen of it. Conflict, Gone, Refused.
        """

    async def patch(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """A JSON merge patch; Gone, Conflict, Refused."""

    async def delete(
        self, kind: Kind, namespace: str, name: str, uid: str, grace: int | None = None
    ) -> Object | None:
        """Begin the end of this very object; what is left of it, None when it is gone at once.

        Gone, Conflict when another has the name.
        """

    async def apply_status(self, resource: Object, status: Mapping[str, Any]) -> Object:
        """The status of a PipelineDeployment as it is to be; Gone, Conflict, Refused."""

    async def post_event(self, event: Object) -> None:
        """A Kubernetes Event; Gone, Refused."""


class KubeCluster:
    """A Cluster over HTTP, on the official client, used only to sign and to send."""

    def __init__(self, configuration: Configuration, counted: Counter) -> None:
        self._client = ApiClient(configuration)
        unlimited = copy(configuration)
        unlimited.connection_pool_maxsize = 0
        self._watching = ApiClient(unlimited)
        """A watch holds its connection for good, so it must take none from the requests."""
        self._counted = counted

    async def close(self) -> None:
        """End its connections."""
        await self._client.close()
        await self._watching.close()

    async def list(
        self, kind: Kind, namespace: str | None, selector: str = "", *, fields: str = ""
    ) -> Listing:
        query = {"limit": _PAGE, **_selecting(selector, fields)}
        head = {"apiVersion": kind.api_version, "kind": kind.kind}  # left out of a list's items
        items: list[Object] = []
        while True:
            answer = await self._call("GET", kind, _folder(kind, namespace), query=query)
            items += (slim({**item, **head}) for item in answer["items"])
            query["continue"] = answer["metadata"].get("continue") or ""
            if not query["continue"]:
                return Listing(items, int(answer["metadata"]["resourceVersion"]))

    async def follow(
        self,
        kind: Kind,
        namespace: str | None,
        version: int,
        selector: str = "",
        *,
        fields: str = "",
    ) -> AsyncGenerator[Change]:
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": str(version)}
        query |= _selecting(selector, fields)
        path = _folder(kind, namespace)
        try:
            answer = await _send(self._watching, "GET", path, query=query, patience=_SILENCE)
            try:
                if answer.status >= 400:
                    raise _error(answer.status, await answer.read(), answer.headers)
                async for line in _lines(answer.response.content):
                    yield _change(line)
            finally:
                answer.response.close()
        except _NO_ANSWER as error:
            raise _no_answer(error) from error

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return await self._call("GET", kind, kind.path(namespace, name))

    async def create(self, obj: Object) -> Object:
        kind = kind_of(obj)
        if kind == CONTROLLER_REVISION:
            return await self._make_by_apply(obj)
        path = kind.path(obj["metadata"]["namespace"])
        return await self._call("POST", kind, path, obj, {"fieldManager": FIELD_MANAGER})

    async def restore(self, obj: Object, live: Object) -> Object:
        kind, metadata, uid = kind_of(obj), obj["metadata"], live["metadata"]["uid"]
        if is_posted(live):
            await self._take_over(kind, metadata["namespace"], metadata["name"], uid)
        return await self._apply(obj, {"uid": uid}, _FORCED)

    async def patch(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call("PATCH", kind, kind.path(namespace, name), body, query, _MERGE)

    async def delete(
        self, kind: Kind, namespace: str, name: str, uid: str, grace: int | None = None
    ) -> Object | None:
        options: Object = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        answer = await self._call("DELETE", kind, kind.path(namespace, name), options)
        # An object that ends between the request and its answer comes without a version.
        dying = {"deletionTimestamp", "resourceVersion"} <= (answer.get("metadata") or {}).keys()
        return answer if dying else None

    async def apply_status(self, resource: Object, status: Mapping[str, Any]) -> Object:
        metadata = resource["metadata"]
        path = f"{PIPELINE_DEPLOYMENT.path(metadata['namespace'], metadata['name'])}/status"
        body = {
            "apiVersion": PIPELINE_DEPLOYMENT.api_version,
            "kind": PIPELINE_DEPLOYMENT.kind,
            "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
            "status": status,
        }
        return await self._call("PATCH", PIPELINE_DEPLOYMENT, path, body, _FORCED, _APPLY)

    async def post_event(self, event: Object) -> None:
        await self._call("POST", EVENT, EVENT.path(event["metadata"]["namespace"]), event)

    async def _make_by_apply(self, obj: Object) -> Object:
        try:
            return await self._apply(obj, {"resourceVersion": _NOBODYS_VERSION}, _UNFORCED)
        except Conflict as taken:
            raise AlreadyExists(str(taken)) from taken

    async def _apply(
        self, obj: Object, precondition: Mapping[str, str], query: Mapping[str, str]
    ) -> Object:
        kind, metadata = kind_of(obj), obj["metadata"]
        body = {**obj, "metadata": {**metadata, **precondition}}
        path = kind.path(metadata["namespace"], metadata["name"])
        return await self._call("PATCH", kind, path, body, query, _APPLY)

    async def _take_over(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """What was made by POST becomes what was applied, if it is still as it was found."""
        found = (await self.get(kind, namespace, name))["metadata"]
        claims = as_applied(found.get("managedFields") or ())
        seen = {"uid": uid, "resourceVersion": found["resourceVersion"]}
        await self.patch(kind, namespace, name, {"metadata": {**seen, "managedFields": claims}})

    async def _call(
        self,
        verb: str,
        kind: Kind,
        path: str,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """The JSON of the answer, counted; every error by its name."""
        status = 0
        try:
            answer = await _send(self._client, verb, path, body, query, content_type)
            status = answer.status
            text = await answer.read()
        except _NO_ANSWER as error:
            raise _no_answer(error) from error
        finally:
            self._counted(verb, kind.plural, status)
        if status >= 400:
            raise _error(status, text, answer.headers)
        try:
            answered: Object = from_json(text)
        except ValueError as error:  # cut short on the way
            raise _no_answer(error) from error
        return answered


async def _send(
    client: ApiClient,
    verb: str,
    path: str,
    body: Object | None = None,
    query: Mapping[str, str] | None = None,
    content_type: str = "application/json",
    patience: aiohttp.ClientTimeout = _TIMEOUT,
) -> RESTResponse:
    """The one place where requests are made. Raises what _NO_ANSWER names."""
    # The body goes past param_serialize, which would copy it to find dates in it.
    method, url, signed, _, _ = await client.param_serialize(
        verb,
        path,
        query_params=list((query or {}).items()),
        header_params={"Accept": "application/json", "Content-Type": content_type},
        auth_settings=["BearerToken"],
    )
    return await client.call_api(method, url, signed, body, _request_timeout=patience)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in filter(None, lines):
            yield line


def _change(line: bytes) -> Change:
    """Expired, or what else a watch ends with."""
    told = from_json(line)
    if told["type"] == "ERROR":
        raise _error(told["object"].get("code") or _EXPIRED, json.dumps(told["object"]).encode())
    return Change(told["type"], told["object"])


def _selecting(labels: str, fields: str) -> dict[str, str]:
    both = {"labelSelector": labels, "fieldSelector": fields}
    return {name: value for name, value in both.items() if value}


def _folder(kind: Kind, namespace: str | None) -> str:
    if namespace is not None:
        return kind.path(namespace)
    return f"{'/apis' if '/' in kind.api_version else '/api'}/{kind.api_version}/{kind.plural}"


def _no_answer(error: Exception) -> Busy:
    return Busy(f"no answer from the API server: {error or type(error).__name__}")


def _error(status: int, text: bytes, headers: Mapping[str, str] = _NO_HEADERS) -> ClusterError:
    reason, sentence = _said(status, text)
    if status == _EXPIRED:
        return Expired(sentence)
    if status == _GONE:
        return Gone(sentence)
    if status == _CONFLICTS:
        return AlreadyExists(sentence) if reason == "AlreadyExists" else Conflict(sentence)
    # A webhook that does not answer may stay so for hours, and a user must be told.
    if _WEBHOOK not in sentence and (status in _BUSY or status >= _SERVER_ERRORS):
        after = headers.get("Retry-After", "")
        return Busy(sentence, float(after) if after.isdigit() else None)
    return Refused(sentence)


def _said(status: int, text: bytes) -> tuple[str, str]:
    """The reason and the message of a Status object, or of whatever answered instead."""
    try:
        said = json.loads(text)
        return said.get("reason") or "", said.get("message") or f"HTTP {status}"
    except (ValueError, AttributeError):
        return "", f"HTTP {status}: {text[:200].decode(errors='replace')}"
