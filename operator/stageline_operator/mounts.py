"""What a pod's volumes are made of, and what of it is not there. Pure.

A kubelet waits for a Secret or a ConfigMap that a volume is made of without a word in the pod's
status (a missing claim is the scheduler's to tell, and what env wants is in the container's state).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from stageline_operator.kinds import CONFIG_MAP, SECRET, Kind, Object

_UNMADE: Final = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True, slots=True)
class Need:
    """An object without which a pod does not start."""

    kind: Kind
    name: str
    keys: tuple[str, ...] = ()
    """That must be in it."""


def is_unmade(pod: Object) -> bool:
    """Whether a pod has a node, and none of its containers is made: it may wait for a volume."""
    status = pod.get("status") or {}
    containers = (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    )
    reasons = [(one.get("state", {}).get("waiting") or {}).get("reason") for one in containers]
    placed = bool((pod.get("spec") or {}).get("nodeName"))
    going = "deletionTimestamp" in pod["metadata"]
    return placed and not going and bool(reasons) and all(one in _UNMADE for one in reasons)


def needs(pod: Object) -> tuple[Need, ...]:
    """What a whole pod's volumes cannot do without, in their order."""
    found = (need for volume in pod["spec"].get("volumes") or () for need in _of_volume(volume))
    return tuple(dict.fromkeys(found))


def lack(need: Need, namespace: str, found: Object | None) -> str:
    """What is missing, and what to do, where `found` is the object; empty where nothing is."""
    called = f"{need.kind.kind} {namespace}/{need.name}"
    if found is None:
        return f"it waits for {called}, which does not exist: create it"
    there = {**(found.get("data") or {}), **(found.get("binaryData") or {})}
    missing = next((key for key in need.keys if key not in there), None)
    return f"it waits for key {missing} of {called}, which has none: add it" if missing else ""


def _of_volume(volume: Object) -> Iterator[Need]:
    for part in (volume, *((volume.get("projected") or {}).get("sources") or ())):
        if secret := part.get("secret"):
            # A volume says secretName, a part of a projected one says name.
            yield from _of_source(SECRET, secret.get("secretName") or secret.get("name"), secret)
        if config := part.get("configMap"):
            yield from _of_source(CONFIG_MAP, config.get("name"), config)


def _of_source(kind: Kind, name: str | None, source: dict[str, Any]) -> Iterator[Need]:
    if name and not source.get("optional"):
        yield Need(kind, name, tuple(item["key"] for item in source.get("items") or ()))
