"""Which kinds there are now: the built-in ones, and those of the CustomResourceDefinitions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stageline_local.apiserver import schema
from stageline_local.apiserver.kinds import BUILT_IN, Kind, Object, custom_kinds
from stageline_local.apiserver.schema import Node


class Served(NamedTuple):
    """A kind, its schema, and the CRD version that declares it, for custom kinds."""

    kind: Kind
    node: Node
    declared: Object


class Registry:
    """The kinds by group, version and plural. CRDs come and go."""

    def __init__(self) -> None:
        self._served: dict[tuple[str, str, str], Served] = {}
        self._by_crd: dict[str, list[tuple[str, str, str]]] = {}
        for kind in BUILT_IN:
            self._served[_place(kind)] = Served(kind, schema.built_in(kind), {})

    def __iter__(self) -> Iterator[Served]:
        return iter(list(self._served.values()))

    def find(self, group: str, version: str, plural: str) -> Served | None:
        """What is served there."""
        return self._served.get((group, version, plural))

    def declare(self, crd: Object) -> None:
        """Serve what a CustomResourceDefinition says."""
        self.withdraw(crd)
        versions = {version["name"]: version for version in crd["spec"]["versions"]}
        places = self._by_crd[crd["metadata"]["name"]] = []
        for kind in custom_kinds(crd):
            declared = versions[kind.version]
            node = schema.custom(declared["schema"]["openAPIV3Schema"])
            self._served[_place(kind)] = Served(kind, node, declared)
            places.append(_place(kind))

    def withdraw(self, crd: Object) -> list[Kind]:
        """Serve no more what a CustomResourceDefinition said; gives the kinds."""
        places = self._by_crd.pop(crd["metadata"]["name"], [])
        return [self._served.pop(place).kind for place in places]


def _place(kind: Kind) -> tuple[str, str, str]:
    return kind.group, kind.version, kind.plural
