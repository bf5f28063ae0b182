"""What each kind's objects are made of: one tree of nodes, of built-in and of custom kinds alike.

Built-in kinds come from the definitions that kubernetes-validate brings along, which are those of
Kubernetes' own OpenAPI document; custom kinds from their CustomResourceDefinition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from stageline_local.apiserver.kinds import Kind

Definitions = Mapping[str, Mapping[str, Any]]

META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_FREE: Final = (
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
)


@dataclass(slots=True, eq=False)
class Node:
    """One value: its type, and what is inside."""

    type: str = "any"
    """object, array, string, integer, number, boolean, quantity, int-or-string or any."""
    properties: dict[str, Node] = field(default_factory=dict)
    values: Node | None = None
    """Given: a map with such values under free names."""
    items: Node | None = None
    keys: tuple[str, ...] = ()
    """Fields that tell the items of a list apart; with none, the list is one value."""
    is_set: bool = False
    atomic: bool = False
    """Whether an object is one value to server-side apply."""
    merge_key: str = ""
    """Field by which a strategic merge patch tells items apart."""
    merges: bool = False
    """Whether a strategic merge patch adds to the list rather than replacing it."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The schema itself: ranges, patterns, defaults, rules."""
    name: str = ""
    """Of the type, as in Kubernetes' own source."""

    @property
    def open(self) -> bool:
        """Whether fields that the schema does not name are kept."""
        return self.type == "any" or bool(self.raw.get("x-kubernetes-preserve-unknown-fields"))

    def child(self, key: str) -> Node:
        """The node of a field or of an entry of a map."""
        return self.properties.get(key) or self.values or ANY

    def item(self) -> Node:
        """The node of a list's items."""
        return self.items or ANY


ANY: Final = Node()


@cache
def definitions() -> Definitions:
    """All of Kubernetes' own types, by their full names."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema"
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith("-local")]
    newest = max(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    text = (folder / newest / "_definitions.json").read_text(encoding="utf-8")
    found: Definitions = json.loads(text)["$defs"]
    return found


@cache
def definition_name(group: str, version: str, kind: str) -> str:
    """Full name of a built-in kind's type."""
    wanted = {"group": group, "version": version, "kind": kind}
    for name, definition in definitions().items():
        if definition.get("x-kubernetes-group-version-kind") == [wanted]:
            return name
    raise KeyError(f"Kubernetes' definitions have no {kind} of {group or 'core'}/{version}")


@cache
def built_in(kind: Kind) -> Node:
    """The node of a built-in kind's objects."""
    return _Compiler(definitions()).named(definition_name(kind.group, kind.version, kind.kind))


def custom(schema: Mapping[str, Any]) -> Node:
    """The node of a custom kind's objects, from the structural schema in its CRD."""
    compiler = _Compiler(definitions())
    node = compiler.node(schema)
    node.properties["metadata"] = _metadata(compiler.named(META), node.properties.get("metadata"))
    node.properties.setdefault("apiVersion", Node("string"))
    node.properties.setdefault("kind", Node("string"))
    return node


def _metadata(whole: Node, said: Node | None) -> Node:
    """Everybody's metadata; a CRD may only say more about names."""
    more = said.properties if said is not None else {}
    names: dict[str, Node] = {name: more[name] for name in ("name", "generateName") if name in more}
    return replace(whole, properties={**whole.properties, **names})


class _Compiler:
    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._named: dict[str, Node] = {}

    def named(self, name: str) -> Node:
        if name not in self._named:
            node = self._named[name] = Node()  # a schema may hold itself
            self._fill(node, self._definitions[name], name)
        return self._named[name]

    def node(self, raw: Mapping[str, Any], name: str = "") -> Node:
        node = Node()
        self._fill(node, raw, name)
        return node

    def _fill(self, node: Node, raw: Mapping[str, Any], name: str) -> None:
        if reference := raw.get("$ref"):
            target = reference.rsplit("/", 1)[1]
            inner = self._definitions[target]
            outer = {key: value for key, value in raw.items() if key not in ("$ref", "description")}
            self._fill(node, {**inner, **outer}, target)
            return
        node.raw = raw
        node.name = name.rsplit(".", 1)[-1]
        node.type = _type(raw, name)
        for key, child in raw.get("properties", {}).items():
            node.properties[key] = self._child(child)
        if isinstance(values := raw.get("additionalProperties"), Mapping):
            node.values = self._child(values)
        if items := raw.get("items"):
            node.items = self._child(items)
        self._fill_merging(node, raw, name)

    def _child(self, raw: Mapping[str, Any]) -> Node:
        reference = raw.get("$ref", "").rsplit("/", 1)[-1]
        if reference and not any(key.startswith("x-") for key in raw):
            return self.named(reference)
        return self.node(raw)

    @staticmethod
    def _fill_merging(node: Node, raw: Mapping[str, Any], name: str) -> None:
        kind = raw.get("x-kubernetes-list-type")
        node.keys = tuple(raw.get("x-kubernetes-list-map-keys", ())) if kind == "map" else ()
        node.is_set = kind == "set"
        node.atomic = name in _FREE or raw.get("x-kubernetes-map-type") == "atomic"
        node.merges = "merge" in raw.get("x-kubernetes-patch-strategy", "").split(",")
        node.merge_key = raw.get("x-kubernetes-patch-merge-key", "") if node.merges else ""


def _type(raw: Mapping[str, Any], name: str) -> str:
    if name == _QUANTITY:
        return "quantity"
    if name == _INT_OR_STRING or raw.get("x-kubernetes-int-or-string"):
        return "int-or-string"
    if name in _FREE:
        return "any"
    kind = raw.get("type", "any")
    if isinstance(kind, list):
        kind = next(each for each in kind if each != "null")
    return str(kind)
