"""The CEL rules of our CRD, each as a function: there is no CEL interpreter here.

Keyed by the rule's own text, so that a rule that changes has no function until someone looks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from stageline_local.apiserver.errors import Problem
from stageline_local.apiserver.schema import Node

Rule = Callable[[Any, Any], bool]
"""Of `self` and `oldSelf`; the latter is None but for transition rules."""


def _partition_agrees(spec: Any, _: Any) -> bool:
    pipeline = spec["pipeline"]
    stages, partition = pipeline.get("stages"), pipeline.get("partition")
    return stages is None or partition is None or len(partition) == stages


def _known_scheme(uri: Any, _: Any) -> bool:
    return re.search(r"^(hf|pvc|s3|file)://.+", uri) is not None


RULES: Final[Mapping[str, Rule]] = {
    "!has(self.pipeline.stages) || !has(self.pipeline.partition) || "
    "size(self.pipeline.partition) == self.pipeline.stages": _partition_agrees,
    "self.matches('^(hf|pvc|s3|file)://.+')": _known_scheme,
}


def problems(node: Node, new: Any, old: Any, path: str = "") -> Iterator[Problem]:
    """What the rules in a schema say against a value that has the right types."""
    for rule in node.raw.get("x-kubernetes-validations", ()):
        holds = RULES.get(rule["rule"])
        if holds is None or ("oldSelf" in rule["rule"] and old is None):
            continue
        if not holds(new, old):
            said = rule.get("message", f"failed rule: {rule['rule']}")
            yield Problem(path, f'Invalid value: "{node.type}": {said}')
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        for key, child in new.items():
            where = f"{path}.{key}" if path else key
            yield from problems(node.child(key), child, before.get(key), where)
    elif isinstance(new, list):  # items have no old selves, as we have no rules in list-maps
        for place, item in enumerate(new):
            yield from problems(node.item(), item, None, f"{path}[{place}]")


def rules_in(node: Node) -> Iterator[str]:
    """The text of every rule in a schema."""
    for rule in node.raw.get("x-kubernetes-validations", ()):
        yield rule["rule"]
    for child in (*node.properties.values(), node.values, node.items):
        if child is not None and child.name != "ObjectMeta":
            yield from rules_in(child)
