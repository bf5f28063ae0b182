"""Checks of a custom resource by the structural schema in its CRD, in Kubernetes' own words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from stageline_local.apiserver.cel.evaluation import go_pattern
from stageline_local.apiserver.decoding import is_a
from stageline_local.apiserver.errors import Problem, shown
from stageline_local.apiserver.fieldsets import element
from stageline_local.apiserver.schema import Node

UNASKED: Final = Problem(  # as Kubernetes ends a list of problems that may not be all
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)
_NAMES: Final = ("name", "generateName")
_STOPS_RULES: Final = (
    *("FieldValueTypeInvalid", "FieldValueRequired", "FieldValueNotSupported"),
    *("FieldValueTooLong", "FieldValueTooMany"),
)


def defaulted(node: Node, value: Any) -> Any:
    """`value` with the defaults that the schema gives for what is absent; null is absent."""
    if isinstance(value, list):
        return [defaulted(node.item(), item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {
        key: defaulted(node.child(key), child)
        for key, child in value.items()
        if child is not None or node.child(key).type == "any" or node.child(key).raw.get("nullable")
    }
    for key, child in node.properties.items():
        if key not in result and "default" in child.raw and node.name != "ObjectMeta":
            result[key] = defaulted(child, child.raw["default"])
    return result


def problems(node: Node, value: Any, old: Any = None, *, status: bool = False) -> list[Problem]:
    """What is wrong with an object of a custom kind; what was so before is let be.

    `status`: the write was one of the status alone, which sentences then begin at.
    """
    found = list(_problems(node, value, old, ""))
    return [_from_status(problem) for problem in found] if status else found


def stops_rules(found: list[Problem]) -> bool:
    """Whether the object is so wrong that its CRD's rules cannot be asked."""
    return any(problem.reason in _STOPS_RULES for problem in found)


def _from_status(problem: Problem) -> Problem:
    inside = problem.field.removeprefix("status.")
    return problem._replace(message=problem.message.replace(problem.field, inside))


def _problems(node: Node, value: Any, old: Any, path: str) -> Iterator[Problem]:
    if old is not None and value == old:
        return
    if not is_a(node, value):
        kind = _type_of(value)
        wanted = "integer,string" if node.type == "int-or-string" else node.type
        message = f'{path} in body must be of type {wanted}: "{kind}"'
        yield Problem(path, f'Invalid value: "{kind}": {message}', "FieldValueTypeInvalid")
        return
    yield from _value_problems(node, value, path)
    if isinstance(value, dict):
        if node.name == "ObjectMeta":  # was decoded as Go does it: only its names are left
            value = {name: value[name] for name in _NAMES if name in value}
        for name in node.raw.get("required", ()):
            if name not in value:
                yield Problem(_below(path, name), "Required value", "FieldValueRequired")
        before = old if isinstance(old, dict) else {}
        for key, child in value.items():
            where = _below(path, key, node)
            yield from _problems(node.child(key), child, before.get(key), where)
    elif isinstance(value, list):
        yield from _list_problems(node, value, path)


def _value_problems(node: Node, value: Any, path: str) -> Iterator[Problem]:
    raw = node.raw
    if "enum" in raw and value not in raw["enum"]:
        choices = ", ".join(shown(choice) for choice in raw["enum"])
        message = f"Unsupported value: {shown(value)}: supported values: {choices}"
        yield Problem(path, message, "FieldValueNotSupported")
    if isinstance(value, str):
        yield from _text_problems(node, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for wrong in _range(node, value):
            yield Problem(path, f"Invalid value: {shown(value)}: {path} in body should be {wrong}")


def _text_problems(node: Node, value: str, path: str) -> Iterator[Problem]:
    """The first thing that is wrong with a text."""
    raw, shown_value = node.raw, f"Invalid value: {shown(value)}"
    most, least, pattern = raw.get("maxLength"), raw.get("minLength"), raw.get("pattern")
    if most is not None and len(value) > most:
        yield Problem(path, f"Too long: may not be more than {most} bytes", "FieldValueTooLong")
    elif least is not None and len(value) < least:
        yield Problem(path, f"{shown_value}: {path} in body should be at least {least} chars long")
    elif pattern and not go_pattern(pattern).search(value):
        yield Problem(path, f"{shown_value}: {path} in body should match '{pattern}'")
    if raw.get("format") == "date-time" and not _is_time(value):
        message = f"{path} in body must be of type date-time: {shown(value)}"
        yield Problem(path, f"{shown_value}: {message}", "FieldValueTypeInvalid")


def _range(node: Node, value: float) -> Iterator[str]:
    least, most = node.raw.get("minimum"), node.raw.get("maximum")
    if least is not None:
        strict = bool(node.raw.get("exclusiveMinimum"))
        if value < least or (strict and value == least):
            yield f"greater than {'' if strict else 'or equal to '}{least}"
    if most is not None:
        strict = bool(node.raw.get("exclusiveMaximum"))
        if value > most or (strict and value == most):
            yield f"less than {'' if strict else 'or equal to '}{most}"


def _list_problems(node: Node, value: list[Any], path: str) -> Iterator[Problem]:
    count = len(value)
    if (least := node.raw.get("minItems")) is not None and count < least:
        message = f"{path} in body should have at least {least} items"
        yield Problem(path, f"Invalid value: {count}: {message}")
    if (most := node.raw.get("maxItems")) is not None and count > most:
        message = f"Too many: {count}: must have at most {most} items"
        yield Problem(path, message, "FieldValueTooMany")
    for place, item in enumerate(value):
        yield from _problems(node.item(), item, None, f"{path}[{place}]")
    if (node.keys or node.is_set) and all(is_a(node.item(), item) for item in value):
        names = [element(node, item) for item in value]
        for place, name in enumerate(names):
            if name in names[:place]:
                message = f"Duplicate value: {name[2:]}"
                yield Problem(f"{path}[{place}]", message, "FieldValueDuplicate")


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None and "T" in text
    except ValueError:
        return False


def _below(path: str, key: str, node: Node | None = None) -> str:
    if not path:
        return key
    free = node is not None and key not in node.properties
    return f"{path}[{key}]" if free and "." in key else f"{path}.{key}"


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds: dict[type, str] = {dict: "object", list: "array", str: "string", int: "integer"}
    return kinds.get(type(value), "null" if value is None else "number")
