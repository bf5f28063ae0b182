"""CEL's text to a tree (github.com/google/cel-spec, "Syntax")."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Any, Final, NamedTuple


class CelError(Exception):
    """A rule that cannot be read, or has no value."""


class Literal(NamedTuple):
    """A number, text, truth or null."""

    value: Any


class Name(NamedTuple):
    """`self`, `oldSelf`, a type, or the variable of a macro."""

    name: str


class Items(NamedTuple):
    """`[a, b]`."""

    items: tuple[Tree, ...]


class Field(NamedTuple):
    """`of.name`."""

    of: Tree
    name: str


class Index(NamedTuple):
    """`of[key]`."""

    of: Tree
    key: Tree


class Call(NamedTuple):
    """`of.name(arguments)`, or `name(arguments)` without `of`."""

    of: Tree | None
    name: str
    arguments: tuple[Tree, ...]


class Operation(NamedTuple):
    """An operator between two operands, or before one (`left` is None)."""

    operator: str
    left: Tree | None
    right: Tree


class Choice(NamedTuple):
    """`test ? yes : no`."""

    test: Tree
    yes: Tree
    no: Tree


Tree = Literal | Name | Items | Field | Index | Call | Operation | Choice

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<number>\d+\.\d+|\d+)
    | (?P<text>r?'(?:[^'\\]|\\.)*'|r?"(?:[^"\\]|\\.)*")
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign>\|\||&&|[=!<>]=|[-+*/%!<>?:.,()\[\]])
    )""",
    re.VERBOSE,
)
_LEVELS: Final = (
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "/", "%"),
)
_CONSTANTS: Final = {"true": True, "false": False, "null": None}


@cache
def parse(text: str) -> Tree:
    """The tree of an expression. CelError if it is none."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._place = 0
        self._text = text

    def whole(self) -> Tree:
        tree = self._expression()
        if self._place != len(self._tokens):
            raise self._error()
        return tree

    def _expression(self) -> Tree:
        test = self._binary(0)
        if not self._take("?"):
            return test
        yes = self._expression()
        self._expect(":")
        return Choice(test, yes, self._expression())

    def _binary(self, level: int) -> Tree:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while (operator := self._peek()) in _LEVELS[level]:
            self._place += 1
            left = Operation(operator, left, self._binary(level + 1))
        return left

    def _unary(self) -> Tree:
        for operator in ("!", "-"):
            if self._take(operator):
                return Operation(operator, None, self._unary())
        return self._member()

    def _member(self) -> Tree:
        tree = self._primary()
        while True:
            if self._take("."):
                name = self._next()
                is_call = self._take("(")
                tree = Call(tree, name, self._list(")")) if is_call else Field(tree, name)
            elif self._take("["):
                tree = Index(tree, self._expression())
                self._expect("]")
            else:
                return tree

    def _primary(self) -> Tree:
        token = self._next()
        if token == "(":
            tree = self._expression()
            self._expect(")")
            return tree
        if token == "[":
            return Items(self._list("]"))
        if token[0].isdigit():
            return Literal(float(token) if "." in token else int(token))
        if token[-1] in "'\"":
            return Literal(ast.literal_eval(token))
        if token in _CONSTANTS:
            return Literal(_CONSTANTS[token])
        if not token.isidentifier():
            raise self._error()
        return Call(None, token, self._list(")")) if self._take("(") else Name(token)

    def _list(self, end: str) -> tuple[Tree, ...]:
        items: list[Tree] = []
        while not self._take(end):
            if items:
                self._expect(",")
            items.append(self._expression())
        return tuple(items)

    def _peek(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        if not token:
            raise self._error()
        self._place += 1
        return token

    def _take(self, token: str) -> bool:
        taken = self._peek() == token
        self._place += taken
        return taken

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._error()

    def _error(self) -> CelError:
        token = self._peek()
        where = f"at {token!r}" if token else "at its end"
        return CelError(f"the rule {self._text!r} cannot be read {where}")


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise CelError(f"the rule {text!r} cannot be read at {text[place : place + 10]!r}")
        found.append(match[match.lastgroup or 0])
        place = match.end()
    return found
