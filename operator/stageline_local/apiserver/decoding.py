"""From what a client sent to an object of its kind: unknown fields go, types are checked.

Built-in kinds are decoded as Go does it, so a wrong type is a bad request; custom kinds are
checked by their schema afterwards, so there only unknown fields matter here.
"""

from __future__ import annotations

import json
from typing import Any, Final

import yaml

from stageline_local.apiserver.errors import Refusal, bad_request
from stageline_local.apiserver.fieldsets import dotted, element
from stageline_local.apiserver.kinds import Kind, Object
from stageline_local.apiserver.schema import Node

_GO_TYPES: Final = {
    "int32": "int32",
    "int64": "int64",
    "boolean": "bool",
    "string": "string",
    "integer": "int32",
    "number": "float64",
}
_PYTHON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "quantity": (str, int, float),
    "int-or-string": (str, int),
}


def parsed(body: bytes, *, yaml_too: bool = False) -> Any:
    """JSON, or YAML where that is allowed."""
    try:
        return yaml.safe_load(body) if yaml_too and body[:1] not in b"{[" else json.loads(body)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None


def unknown_fields(node: Node, value: Any, path: str = "") -> list[str]:
    """Paths of the fields that the schema does not have, in the order of their names."""
    if isinstance(value, list):
        return [
            found
            for place, item in enumerate(value)
            for found in unknown_fields(node.item(), item, f"{path}[{place}]")
        ]
    if not isinstance(value, dict):
        return []
    found = []
    for key, child in sorted(value.items()):
        where = f"{path}.{key}" if path else key
        if _knows(node, key):
            found += unknown_fields(node.child(key), child, where)
        elif not node.open:
            found.append(where)
    return found


def pruned(node: Node, value: Any) -> Any:
    """`value` without the fields that the schema does not have."""
    if isinstance(value, list):
        return [pruned(node.item(), item) for item in value]
    if not isinstance(value, dict) or node.type == "any":
        return value
    return {
        key: pruned(node.child(key), child)
        for key, child in value.items()
        if _knows(node, key) or node.open
    }


def _knows(node: Node, key: str) -> bool:
    return key in node.properties or node.values is not None


def decoded(kind: Kind, node: Node, value: Any, path: str = "", owner: str = "") -> Any:
    """An object of a built-in kind: nulls are absent, quantities are text, types are right."""
    if node.type == "any":
        return value
    if not is_a(node, value):
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: json: '
            f"cannot unmarshal {_json_type(value)} into Go struct field "
            f"{owner}.{path} of type {_go_type(node)}"
        )
    if isinstance(value, dict):
        return {
            key: decoded(kind, node.child(key), child, *_inside(node, key, path, owner))
            for key, child in value.items()
            if child is not None
        }
    if isinstance(value, list):
        return [decoded(kind, node.item(), item, path, owner) for item in value]
    return str(value) if node.type == "quantity" else value


def is_a(node: Node, value: Any) -> bool:
    """Whether `value` is of the node's type; a whole float is an integer, as in JSON."""
    if node.type == "any":
        return True
    if isinstance(value, bool):
        return node.type == "boolean"
    if node.type == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _PYTHON_TYPES[node.type])


def check_applied(kind: Kind, node: Node, config: Object, name: str) -> None:
    """What server-side apply needs: known fields, right types, and items that are distinct."""
    for problem in _typing_problems(node, config, ""):
        raise Refusal(
            500,
            "",
            f"failed to create typed patch object (/{name}; {kind.api_version}, "
            f"Kind={kind.kind}): {problem}",
        )


def _typing_problems(node: Node, value: Any, path: str) -> list[str]:
    if value is None or node.type == "any":
        return []
    if not is_a(node, value):
        return [f"{path}: expected {_EXPECTED.get(node.type, node.type)}, got {_json_type(value)}"]
    if isinstance(value, dict):
        found = []
        for key, child in value.items():
            if _knows(node, key):
                found += _typing_problems(node.child(key), child, f"{path}.{key}")
            elif not node.open:
                found.append(f"{path}.{key}: field not declared in schema")
        return found
    if isinstance(value, list):
        return _list_problems(node, value, path)
    return []


def _list_problems(node: Node, value: list[Any], path: str) -> list[str]:
    found = [
        problem
        for place, item in enumerate(value)
        for problem in _typing_problems(node.item(), item, f"{path}[{place}]")
    ]
    if found or not (node.keys or node.is_set):
        return found
    names = [element(node, item) for item in value]
    twice = [name for name in names if names.count(name) > 1]
    return [f"{path}: duplicate entries for key {dotted((twice[0],))}"] if twice else []


_EXPECTED: Final = {
    "integer": "numeric (int or float)",
    "number": "numeric (int or float)",
    "object": "map",
    "array": "list",
}


def _inside(node: Node, key: str, path: str, owner: str) -> tuple[str, str]:
    """Path and type as Go tells them: entries of maps are nameless."""
    if key not in node.properties:
        return path, owner
    return (f"{path}.{key}" if path else key), node.name or owner


def _go_type(node: Node) -> str:
    kind = str(node.raw.get("format") or node.type)
    return _GO_TYPES.get(kind, f"v1.{node.name}" if node.name else kind)


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    kinds: dict[type, str] = {dict: "object", list: "array", str: "string"}
    return kinds.get(type(value), "null")
