"""The OpenAPI v3 documents by which kubectl explains kinds, patches, and learns what we check."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from stageline_local.apiserver.kinds import Kind, Object
from stageline_local.apiserver.registry import Registry, Served
from stageline_local.apiserver.schema import META, definition_name, definitions

_PREFIX: Final = "/openapi/v3"
_REFERENCE: Final = "#/components/schemas/"
_PARAMETERS: Final = [
    {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for name in ("dryRun", "fieldManager", "fieldValidation")
]


def answer(registry: Registry, path: str) -> Object | None:
    """The document at `path`; None if it is no path of these."""
    roots = {served.kind.root for served in registry}
    if path == _PREFIX:
        return {"paths": {root: _link(registry, root) for root in sorted(roots)}}
    root = path.removeprefix(f"{_PREFIX}/")
    return _document(registry, root) if root in roots else None


def _link(registry: Registry, root: str) -> Object:
    """Clients keep a document as long as its hash stays."""
    declared = [served.declared for served in registry if served.kind.root == root]
    content = json.dumps([root, declared], sort_keys=True).encode()
    digest = hashlib.sha256(content).hexdigest()[:32].upper()
    return {"serverRelativeURL": f"{_PREFIX}/{root}?hash={digest}"}


def _document(registry: Registry, root: str) -> Object:
    here = [served for served in registry if served.kind.root == root]
    schemas: Object = {}
    for served in here:
        name, schema = _of_kind(served)
        schemas[name] = schema
        for used in _reachable([META, *_references(schema)]):
            schemas.setdefault(used, _converted(definitions()[used]))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.37.0"},
        "paths": {path: item for served in here for path, item in _paths(served.kind)},
        "components": {"schemas": schemas},
    }


def _of_kind(served: Served) -> tuple[str, Object]:
    kind = served.kind
    if not kind.custom:
        name = definition_name(kind.group, kind.version, kind.kind)
        return name, _converted(definitions()[name])
    reversed_group = ".".join(reversed(kind.group.split(".")))
    schema = dict(served.declared["schema"]["openAPIV3Schema"])
    about = definitions()[definition_name("", "v1", "Pod")]["properties"]["metadata"]
    described = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        **schema.get("properties", {}),
        "metadata": _converted(about),
    }
    tag = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    tagged = {**schema, "properties": described, "x-kubernetes-group-version-kind": [tag]}
    return f"{reversed_group}.{kind.version}.{kind.kind}", tagged


def _converted(value: Any) -> Any:
    """From JSON Schema to OpenAPI 3.0: other references, no null among types."""
    if isinstance(value, list):
        return [_converted(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    result = {key: _converted(child) for key, child in value.items()}
    if isinstance(kinds := result.get("type"), list):
        result["type"] = next(kind for kind in kinds if kind != "null")
    if isinstance(reference := result.get("$ref"), str):
        result["$ref"] = _REFERENCE + reference.rsplit("/", 1)[-1]
    return result


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(reference := value.get("$ref"), str):
            yield reference.rsplit("/", 1)[-1]
        for child in value.values():
            yield from _references(child)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _reachable(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += _references(definitions()[name])
    return found


def _paths(kind: Kind) -> Iterator[tuple[str, Object]]:
    scope = "/namespaces/{namespace}" if kind.namespaced else ""
    collection = f"/{kind.root}{scope}/{kind.plural}"
    tag = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    operation = {
        "x-kubernetes-group-version-kind": tag,
        "responses": {"200": {"description": "OK"}},
    }
    changing = {**operation, "parameters": _PARAMETERS}
    yield collection, {"get": operation, "post": changing}
    yield (
        collection + "/{name}",
        {"get": operation, "put": changing, "patch": changing, "delete": operation},
    )
