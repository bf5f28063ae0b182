"""What a request asks for beside its place: options, selectors, its body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from stageline_local.apiserver import decoding, protobuf, selectors
from stageline_local.apiserver.api import Options
from stageline_local.apiserver.errors import Refusal, bad_request
from stageline_local.apiserver.kinds import Kind, Object
from stageline_local.apiserver.writes import DeleteOptions

_JSON_TYPES: Final = ("application/json", "application/octet-stream")  # the latter: none said
_YAML: Final = "application/yaml"


def options(request: web.Request) -> Options:
    """Who writes, how, and what becomes of unknown fields."""
    query = request.query
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise bad_request(
            f'fieldValidation: Unsupported value: "{validation}": supported values: '
            '"Ignore", "Strict", "Warn"'
        )
    agent = request.headers.get("User-Agent", "unknown").split("/")[0]
    manager = query.get("fieldManager", "")
    return Options(
        manager or agent,
        manager,
        is_true(query.get("force")),
        query.get("dryRun") == "All",
        validation,
    )


def delete_options(request: web.Request, body: bytes) -> DeleteOptions:
    """How a DELETE is meant: its body says it, or the query."""
    said = decoding.parsed(body, yaml_too=True) if body.strip() else {}
    if not isinstance(said, dict):
        raise bad_request("the body of a delete must be DeleteOptions")
    return delete_wishes(said, request.query)


def delete_wishes(said: Object, query: Mapping[str, str]) -> DeleteOptions:
    """The DeleteOptions in an object. Refusal (400) if they make no sense."""
    grace: Any = said.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    conditions = said.get("preconditions") or {}
    propagation = said.get("propagationPolicy") or query.get("propagationPolicy") or ""
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        raise bad_request(f'invalid propagationPolicy "{propagation}"')
    try:
        seconds = None if grace is None else int(grace)
    except (TypeError, ValueError):
        raise bad_request(f"gracePeriodSeconds must be a whole number, not {grace!r}") from None
    return DeleteOptions(
        seconds,
        propagation,
        conditions.get("uid") or "",
        conditions.get("resourceVersion") or "",
    )


def matches(query: Mapping[str, str], kind: Kind, name: str = "") -> selectors.Matches:
    """The selection of a list or a watch."""
    fields = selectors.by_fields(query.get("fieldSelector", ""), kind)
    labels = selectors.by_labels(query.get("labelSelector", ""))
    return lambda obj: (
        (not name or obj["metadata"]["name"] == name)
        and labels(obj["metadata"].get("labels", {}))
        and fields(obj)
    )


async def body(request: web.Request) -> Any:
    """The object in a request. Refusal (415) for what we cannot read."""
    kind, content = request.content_type, await request.read()
    found: Any = None
    if kind == protobuf.CONTENT_TYPE:
        found = protobuf.decoded(content)
    elif kind in _JSON_TYPES or kind == _YAML:
        found = decoding.parsed(content, yaml_too=kind == _YAML)
        if not isinstance(found, dict):
            raise bad_request("the body must be an object")
    if found is None:
        raise Refusal(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml",
        )
    return found


def wants_table(request: web.Request) -> bool:
    """Whether the client prints tables, as `kubectl get` does."""
    return "as=Table" in request.headers.get("Accept", "")


def included(request: web.Request) -> str:
    """How much of its object a row of a table has."""
    return request.query.get("includeObject", "")


def is_true(text: str | None) -> bool:
    """Whether a flag of a query is set."""
    return (text or "").lower() in ("true", "1")
