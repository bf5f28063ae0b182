"""The `x-kubernetes-validations` of a schema, on an object and what it was before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from stageline_local.apiserver.cel.evaluation import evaluate
from stageline_local.apiserver.cel.syntax import CelError, parse
from stageline_local.apiserver.errors import Problem
from stageline_local.apiserver.fieldsets import element
from stageline_local.apiserver.schema import Node


def problems(node: Node, new: Any, old: Any, path: str = "") -> Iterator[Problem]:
    """What the rules say against a value that has the right types; `old` is None for new ones.

    What has not changed is not looked at again, as in Kubernetes: a rule that came later does not
    lock up the objects that were there before.
    """
    if not _has_rules(node) or (old is not None and new == old):
        return
    for rule in node.raw.get("x-kubernetes-validations", ()):
        yield from _judged(rule, node, new, old, path)
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        for key, child in new.items():
            where = _below(node, path, key)
            yield from problems(node.child(key), child, before.get(key), where)
    elif isinstance(new, list):
        known = {element(node, item): item for item in old or ()} if node.keys else {}
        for place, item in enumerate(new):
            former = known.get(element(node, item)) if node.keys else None
            yield from problems(node.item(), item, former, f"{path}[{place}]")


@lru_cache(maxsize=4096)
def _has_rules(node: Node) -> bool:
    """Whether there are rules anywhere in a schema; metadata has a few for names alone."""
    if node.raw.get("x-kubernetes-validations"):
        return True
    inside = [*node.properties.values(), node.values, node.items]
    if node.name == "ObjectMeta":
        inside = [node.properties["name"], node.properties["generateName"]]
    return any(child is not None and _has_rules(child) for child in inside)


def _judged(
    rule: Mapping[str, Any], node: Node, new: Any, old: Any, path: str
) -> Iterator[Problem]:
    text = rule["rule"]
    if "oldSelf" in text and old is None:
        return
    names = {"self": new, "oldSelf": old}
    value = f'Invalid value: "{node.raw.get("type", "")}"'
    where = path + rule.get("fieldPath", "")
    try:
        if not evaluate(parse(text), names):
            reason = rule.get("reason", "FieldValueInvalid")
            yield Problem(where.removeprefix("."), f"{value}: {_message(rule, names)}", reason)
    except CelError as error:
        said = rule.get("message", text)
        yield Problem(path, f"{value}: {error} evaluating rule: {said}")


def _message(rule: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    plain = str(rule.get("message", f"failed rule: {rule['rule']}"))
    if "messageExpression" not in rule:
        return plain
    try:
        return str(evaluate(parse(rule["messageExpression"]), names))
    except CelError:
        return plain


def _below(node: Node, path: str, key: str) -> str:
    if key not in node.properties and node.values is not None:
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key
