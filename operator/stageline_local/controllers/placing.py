"""Whether a pod fits a node: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction

from stageline_api.quantity import parse_quantity
from stageline_local.client import Object


def requests(pod: Object) -> dict[str, Fraction]:
    """What the pod asks for, summed over its containers; a limit stands for a missing request."""
    total: dict[str, Fraction] = {}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, quantity in asked.items():
            total[name] = total.get(name, Fraction(0)) + parse_quantity(str(quantity))
    return total


def obstacles(pod: Object, node: Object, there: Iterable[Object]) -> list[str]:
    """Why the pod cannot be on the node beside the pods that are there; empty when it can.

    CPU is shared: it is short only for a pod that asks for more than the node has.
    """
    labels = node["metadata"].get("labels") or {}
    wanted = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return ["node(s) didn't match Pod's node affinity/selector"]
    room = {name: parse_quantity(str(q)) for name, q in node["status"]["allocatable"].items()}
    others = [other for other in there if not _over(other)]
    found = ["Too many pods"] if len(others) >= room.get("pods", len(others) + 1) else []
    used: Counter[str] = Counter()
    for other in others:
        used.update(requests(other))
    for name, amount in sorted(requests(pod).items()):
        taken = Fraction(0) if name == "cpu" else used[name]
        if amount and amount + taken > room.get(name, Fraction(0)):
            found.append(f"Insufficient {name}")
    return found


def refusal(obstacles_by_node: Sequence[Sequence[str]]) -> str:
    """Kubernetes' sentence when no node will do."""
    count = len(obstacles_by_node)
    if not count:
        return "no nodes available to schedule pods"
    reasons = Counter(reason for reasons in obstacles_by_node for reason in reasons)
    said = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
    return f"0/{count} nodes are available: {said}."


def _over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
