"""The JSONPath that CRDs use for printer columns and for scale: fields, indices, one filter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from stageline_local.apiserver.kinds import Object

_STEP: Final = re.compile(
    r"""\.(?P<field>[A-Za-z0-9_\-]+(?:\\\.[A-Za-z0-9_\-/]+)*)"""
    r"""|\[(?P<index>-?\d+|\*)\]"""
    r"""|\[['"](?P<quoted>[^'"]+)['"]\]"""
    r"""|\[\?\(@\.(?P<key>[\w.]+)\s*==\s*["'](?P<value>[^"']*)["']\)\]"""
)


def at(obj: Object, path: str) -> Any:
    """The first value at `path`; None if there is none."""
    return next(every(obj, path), None)


def every(obj: Object, path: str) -> Iterator[Any]:
    """All values at `path`."""
    values: Iterator[Any] = iter([obj])
    for step in _steps(path):
        values = _go(values, step)
    return values


def with_value(obj: Object, path: str, value: Any) -> Object:
    """`obj` with `value` at a path of fields."""
    first, *rest = path.removeprefix(".").split(".")
    if not rest:
        return {**obj, first: value}
    return {**obj, first: with_value(obj.get(first) or {}, ".".join(rest), value)}


@cache
def _steps(path: str) -> tuple[tuple[str, str, str], ...]:
    found, place = [], 0
    while place < len(path):
        match = _STEP.match(path, place)
        if match is None:
            return (("field", "\0", ""),)  # a path that finds nothing, as in Kubernetes
        kind = str(match.lastgroup)
        if kind == "value":
            found.append(("filter", match["key"], match["value"]))
        else:
            found.append((kind, match[kind].replace("\\.", "."), ""))
        place = match.end()
    return tuple(found)


def _go(values: Iterator[Any], step: tuple[str, str, str]) -> Iterator[Any]:
    kind, name, wanted = step
    for value in values:
        if kind in ("field", "quoted") and isinstance(value, dict) and name in value:
            yield value[name]
        elif kind == "index" and isinstance(value, list):
            yield from value if name == "*" else value[int(name) :][:1]
        elif kind == "filter" and isinstance(value, list):
            yield from (item for item in value if str(at(item, f".{name}")) == wanted)
