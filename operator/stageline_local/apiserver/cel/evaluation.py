"""The value of a CEL expression, with the functions that Kubernetes adds to the language."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Final, NamedTuple

from stageline_local.apiserver.cel.syntax import (
    Call,
    CelError,
    Choice,
    Field,
    Index,
    Items,
    Literal,
    Name,
    Operation,
    Tree,
)

Names = Mapping[str, Any]


class Type(NamedTuple):
    """The value of `type(x)`, and of `string` and its like."""

    name: str


_TYPES: Final = {
    name: Type(name) for name in ("string", "int", "double", "bool", "list", "map", "null_type")
}
_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "in": lambda item, container: item in container,
}
_SUFFIXES: Final = {
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
    "": Decimal(1),
    "m": Decimal("1e-3"),
    "u": Decimal("1e-6"),
    "n": Decimal("1e-9"),
}


def evaluate(tree: Tree, names: Names) -> Any:
    """The value of `tree`. CelError if it has none: an absent field, an unknown function."""
    match tree:
        case Literal(value):
            return value
        case Name(name):
            return _named(name, names)
        case Items(items):
            return [evaluate(item, names) for item in items]
        case Field(of, name):
            return _field(evaluate(of, names), name)
        case Index(of, key):
            return _index(evaluate(of, names), evaluate(key, names))
        case Choice(test, yes, no):
            return evaluate(yes if evaluate(test, names) else no, names)
        case Operation():
            return _operation(tree, names)
        case Call():
            return _call(tree, names)


def _named(name: str, names: Names) -> Any:
    if name in names:
        return names[name]
    if name in _TYPES:
        return _TYPES[name]
    raise CelError(f"undeclared reference to '{name}'")


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise CelError(f"no such key: {name}")
    return value[name]


def _index(value: Any, key: Any) -> Any:
    try:
        return value[key]
    except (LookupError, TypeError):
        raise CelError(f"no such key: {key}") from None


def _operation(tree: Operation, names: Names) -> Any:
    if tree.left is None:
        value = evaluate(tree.right, names)
        return not value if tree.operator == "!" else -value
    if tree.operator in ("||", "&&"):
        return _logic(tree.left, tree.right, names, decisive=tree.operator == "||")
    left, right = evaluate(tree.left, names), evaluate(tree.right, names)
    if tree.operator in ("/", "%"):
        return _division(tree.operator, left, right)
    try:
        return _OPERATORS[tree.operator](left, right)
    except TypeError:
        raise CelError("no such overload") from None


def _logic(left: Tree, right: Tree, names: Names, *, decisive: bool) -> bool:
    """One side that decides is enough, even when the other has no value."""
    try:
        if evaluate(left, names) == decisive:
            return decisive
    except CelError:
        if evaluate(right, names) == decisive:
            return decisive
        raise
    return bool(evaluate(right, names))


def _division(sign: str, left: Any, right: Any) -> Any:
    """Whole numbers are cut off towards zero, as in Go."""
    if right == 0:
        raise CelError("division by zero")
    if isinstance(left, float):
        return left / right
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    return quotient if sign == "/" else left - right * quotient


def _call(tree: Call, names: Names) -> Any:
    if tree.of is None and tree.name == "has":
        return _has(tree.arguments[0], names)
    if tree.of is not None and tree.name in _MACROS and len(tree.arguments) == 2:
        return _macro(tree, evaluate(tree.of, names), names)
    arguments = [evaluate(each, names) for each in tree.arguments]
    if tree.of is not None:
        arguments.insert(0, evaluate(tree.of, names))
    function = _FUNCTIONS.get(tree.name)
    if function is None:
        raise CelError(f"undeclared reference to '{tree.name}'")
    try:
        return function(*arguments)
    except (TypeError, AttributeError, ValueError):
        raise CelError(f"no such overload: {tree.name}") from None


def _has(tree: Tree, names: Names) -> bool:
    if not isinstance(tree, Field):
        raise CelError("has() takes the field of something")
    value = evaluate(tree.of, names)
    return isinstance(value, dict) and tree.name in value


_MACROS: Final = ("all", "exists", "exists_one", "filter", "map")


def _macro(tree: Call, items: Any, names: Names) -> Any:
    variable, body = tree.arguments
    if not isinstance(variable, Name):
        raise CelError(f"{tree.name}() takes a variable first")
    values = [(item, evaluate(body, {**names, variable.name: item})) for item in items]
    match tree.name:
        case "all":
            return all(value for _, value in values)
        case "exists":
            return any(value for _, value in values)
        case "exists_one":
            return sum(bool(value) for _, value in values) == 1
        case "filter":
            return [item for item, value in values if value]
    return [value for _, value in values]


def _quantity(text: str) -> Decimal:
    match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([a-zA-Z]*)", text)
    if match is None or match[2] not in _SUFFIXES:
        raise CelError(f"{text!r} is no quantity")
    try:
        return Decimal(match[1]) * _SUFFIXES[match[2]]
    except InvalidOperation:
        raise CelError(f"{text!r} is no quantity") from None


def _is_quantity(text: str) -> bool:
    try:
        _quantity(text)
    except CelError:
        return False
    return True


def _compare(left: Decimal, right: Decimal) -> int:
    return (left > right) - (left < right)


@cache
def go_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of Go's: `$` is the very end, and letters are those of ASCII."""
    return re.compile(re.sub(r"(?<!\\)\$(?=\)|\||\Z)", r"\\Z", pattern), re.ASCII)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(value: Any) -> Type:
    kinds = {bool: "bool", int: "int", float: "double", str: "string", list: "list", dict: "map"}
    return _TYPES[kinds.get(type(value), "null_type")]


_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "size": len,
    "string": _text,
    "int": int,
    "type": _type,
    "matches": lambda text, pattern: go_pattern(pattern).search(text) is not None,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": lambda text, part: part in text,
    "split": lambda text, separator: text.split(separator),
    "lowerAscii": str.lower,
    "max": max,
    "min": min,
    "sum": sum,
    "quantity": _quantity,
    "isQuantity": _is_quantity,
    "isInteger": lambda number: number == number.to_integral_value(),
    "asInteger": int,
    "compareTo": _compare,
    "isGreaterThan": operator.gt,
    "isLessThan": operator.lt,
}
