"""How much memory the GPUs of a stage have, as the nodes tell that it may get. Pure.

GPU feature discovery labels each node with the memory of its GPUs, nvidia.com/gpu.memory, in MiB.
A stage may get any node that its pod fits, so the smallest of these counts, and where one of them
has no such label, nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from stageline_api.plan_request import GPU, Device, NodeQuery, PlanRequest
from stageline_api.pods import Toleration
from stageline_api.quantity import parse_quantity
from stageline_operator.kinds import Object

MEMORY_LABEL: Final = "nvidia.com/gpu.memory"
_HINDERING: Final = ("NoSchedule", "NoExecute")
_PASSING: Final = frozenset(
    f"node.kubernetes.io/{word}"
    for word in (
        "not-ready", "unreachable", "memory-pressure", "disk-pressure", "pid-pressure",
        "network-unavailable",
    )
)  # fmt: skip
"""Taints that Kubernetes sets for as long as a node is unwell: a stage may well get it later."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """All nodes of the cluster, or why they may not be read."""

    items: Sequence[Object] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A request with what the nodes say of it."""

    request: PlanRequest
    known: bool
    """Whether that is how much memory each GPU has."""
    words: str
    """By which nodes that is known, or why it is not."""


def asks_nodes(request: PlanRequest) -> bool:
    """Whether nothing but the nodes can tell the memory of some device."""
    return any(device.nodes is not None for device in request.devices)


def answered(request: PlanRequest, nodes: Nodes) -> Answer:
    """The request with the memory of the smallest node for each stage that asks for it."""
    smallest: list[str] = []
    unknown: list[str] = []

    def told(device: Device) -> Device:
        if device.nodes is None:
            return device
        found = _smallest(device.nodes, nodes)
        if isinstance(found, str):
            unknown.append(found)
            return device
        mebibytes, name = found
        smallest.append(name)
        return replace(device, memory_bytes=mebibytes << 20)

    made = replace(
        request,
        device=told(request.device),
        overrides={stage: told(device) for stage, device in request.overrides.items()},
    )
    if unknown:
        return Answer(made, known=False, words=unknown[0])
    names = ", ".join(dict.fromkeys(smallest))
    return Answer(made, known=True, words=f"GPU memory is by label {MEMORY_LABEL} of {names}")


def _smallest(query: NodeQuery, nodes: Nodes) -> tuple[int, str] | str:
    """Memory in MiB and the node that has it; or why that is not known."""
    if nodes.refused:
        return f"nodes may not be read: {nodes.refused}"
    if query.patched:
        return f"a podTemplate has {query.patched}, so it is open which nodes fit"
    fitting = [node for node in nodes.items if fits(node, query)]
    if not fitting:
        return f"no node that fits offers {query.gpus} of {GPU} now"
    sizes = [(_mebibytes(node), str(node["metadata"]["name"])) for node in fitting]
    without = sorted(name for size, name in sizes if size is None)
    if without:
        return f"node {without[0]} has no label {MEMORY_LABEL}: GPU feature discovery sets it"
    return min((size, name) for size, name in sizes if size is not None)


def fits(node: Object, query: NodeQuery) -> bool:
    """Whether a pod of a stage may run on the node, now or when it is empty and well again."""
    labels = node["metadata"].get("labels") or {}
    taints = (node.get("spec") or {}).get("taints") or ()
    return (
        _gpus(node) >= max(query.gpus, 1)
        and query.labels.items() <= labels.items()
        and all(_is_tolerated(taint, query.tolerations) for taint in taints)
    )


def _is_tolerated(taint: Object, tolerations: Iterable[Toleration]) -> bool:
    if taint["effect"] not in _HINDERING or taint["key"] in _PASSING:
        return True
    return any(_tolerates(one, taint) for one in tolerations)


def _tolerates(one: Toleration, taint: Object) -> bool:
    return (
        one.effect in (None, taint["effect"])
        and one.key in (None, taint["key"])
        and (one.operator == "Exists" or one.value == taint.get("value", ""))
    )


def _gpus(node: Object) -> int:
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    try:
        return int(parse_quantity(str(allocatable.get(GPU, "0"))))
    except ValueError:
        return 0


def _mebibytes(node: Object) -> int | None:
    text = (node["metadata"].get("labels") or {}).get(MEMORY_LABEL, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None
