"""Sets of fields: which ones a value has, and which ones differ between two values.

A path is written in Kubernetes' own elements: `f:spec` for a field, `k:{"name":"c"}` for the item
of a list that is told apart by keys, `v:"x"` for the item of a set. What is one value to the
schema (a scalar, an atomic list) is one path.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from stageline_local.apiserver.kinds import Object
from stageline_local.apiserver.schema import Node

Path = tuple[str, ...]
Paths = set[Path]


class Difference(NamedTuple):
    """What leads from one value to another."""

    added: Paths
    modified: Paths
    removed: Paths


def from_fields_v1(fields: Object) -> Paths:
    """The set that a `fieldsV1` of metadata.managedFields stands for."""
    return set(_walk(fields, ()))


def _walk(fields: Object, path: Path) -> Iterator[Path]:
    if not fields:
        yield path
    for element, inside in fields.items():
        if element == ".":
            yield path
        else:
            yield from _walk(inside, (*path, element))


def to_fields_v1(paths: Paths) -> Object:
    """`paths` as a `fieldsV1`."""
    root: Object = {}
    for path in sorted(paths):
        place = root
        for element in path:
            place = place.setdefault(element, {})
    for path in paths:
        place = root
        for element in path:
            place = place[element]
        if place:
            place["."] = {}
    return root


def dotted(path: Path) -> str:
    """As in sentences: `.spec.containers[name="c"].image`."""
    return "".join(_word(element) for element in path)


def _word(element: str) -> str:
    mark, text = element.split(":", 1)
    if mark == "f":
        return f".{text}"
    value = json.loads(text)
    if mark == "v":
        return f"[={json.dumps(value)}]"
    return "[" + ",".join(f"{key}={json.dumps(each)}" for key, each in value.items()) + "]"


def is_granular(node: Node, value: Any) -> bool:
    """Whether the parts of `value` are fields of their own."""
    if isinstance(value, dict):
        return not node.atomic
    return isinstance(value, list) and bool(node.keys or node.is_set)


def element(node: Node, item: Any) -> str:
    """How an item of the list `node` is called in a path."""
    if node.is_set:
        return "v:" + json.dumps(item, separators=(",", ":"), sort_keys=True)
    defaults = node.item().properties
    key = {name: item.get(name, defaults[name].raw.get("default")) for name in node.keys}
    present = {name: value for name, value in key.items() if value is not None}
    return "k:" + json.dumps(present, separators=(",", ":"), sort_keys=True)


def parts(node: Node, value: Any) -> dict[str, tuple[Node, Any]]:
    """The parts of a granular value, by path element, each with its node."""
    if isinstance(value, dict):
        return {f"f:{key}": (node.child(key), child) for key, child in value.items()}
    return {element(node, item): (node.item(), item) for item in value}


def said(node: Node, value: Any, path: Path = ()) -> Paths:
    """The fields that a manager takes by applying `value`."""
    if not is_granular(node, value):
        return {path}
    found: Paths = set()
    for name, (inner, child) in parts(node, value).items():
        where = (*path, name)
        if not name.startswith("f:") or child in (None, {}) or name[2:] not in node.properties:
            found.add(where)
        found |= said(inner, child, where)
    return found


def named_ancestors(node: Node, paths: Iterable[Path]) -> Paths:
    """`paths`, and those fields around them that the schema names."""
    found: Paths = set()
    for path in paths:
        here = node
        for depth, name in enumerate(path):
            named = name.startswith("f:") and name[2:] in here.properties
            if named or not name.startswith("f:") or depth == len(path) - 1:
                found.add(path[: depth + 1])
            here = here.child(name[2:]) if name.startswith("f:") else here.item()
    return found


def difference(node: Node, old: Any, new: Any) -> Difference:
    """The fields that differ between two objects."""
    found = Difference(set(), set(), set())
    _compare(node, old, new, (), found)
    return found


def _compare(node: Node, old: Any, new: Any, path: Path, found: Difference) -> None:
    if old is new or old == new:
        return
    if type(old) is not type(new) or not is_granular(node, new):
        found.modified.add(path)
        return
    before, after = parts(node, old), parts(node, new)
    for name in before.keys() | after.keys():
        where = (*path, name)
        if name not in before:
            _every(*after[name], where, found.added)
        elif name not in after:
            _every(*before[name], where, found.removed)
        else:
            _compare(after[name][0], before[name][1], after[name][1], where, found)


def _every(node: Node, value: Any, path: Path, found: Paths) -> None:
    """Puts what is at `path` and all that is inside into `found`."""
    found.add(path)
    if is_granular(node, value):
        for name, (inner, child) in parts(node, value).items():
            _every(inner, child, (*path, name), found)
