"""Which fields of the resource a CRD drops, since it is older than the operator. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from stageline_api.crd import VERSION, schema
from stageline_operator.kinds import Object

_SHOWN: Final = 3
_ANYTHING: Final = "x-kubernetes-preserve-unknown-fields"


def dropped_fields(crd: Object) -> tuple[str, ...]:
    """Fields of the resource that an API server with this CRD does not keep, by path."""
    for version in crd["spec"]["versions"]:
        if version["name"] == VERSION:
            served = version.get("schema", {}).get("openAPIV3Schema", {})
            return tuple(_dropped(schema(), served, ""))
    return (f"all of {VERSION}",)


def sentence(dropped: tuple[str, ...]) -> str:
    """What is wrong, and what to do."""
    more = f" and {len(dropped) - _SHOWN} more" if len(dropped) > _SHOWN else ""
    return (
        f"the CRD in this cluster is older than the operator and drops "
        f"{', '.join(dropped[:_SHOWN])}{more}: apply manifests/crd.yaml of the operator's version"
    )


def _dropped(ours: dict[str, Any], served: dict[str, Any], path: str) -> Iterator[str]:
    if served.get(_ANYTHING):
        return
    there = served.get("properties", {})
    for name, child in ours.get("properties", {}).items():
        place = f"{path}.{name}" if path else name
        if name in there:
            yield from _dropped(child, there[name], place)
        else:
            yield place
    if "items" in ours:
        yield from _dropped(ours["items"], served.get("items", {}), f"{path}[]")
