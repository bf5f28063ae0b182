"""A request that two API servers are asked, and parts of bodies."""

from typing import Any, NamedTuple

from support.apiserver import JSON


class Step(NamedTuple):
    """A request; `only_code` where the sentences may differ."""

    method: str
    path: str
    body: Any = None
    content_type: str = JSON
    accept: str = JSON
    only_code: bool = False


def condition(kind: str, status: str = "True") -> dict[str, str]:
    """A condition of a status."""
    when = "2026-01-01T00:00:00Z"
    return {
        "type": kind,
        "status": status,
        "reason": "Good",
        "lastTransitionTime": when,
        "message": "",
    }


def applied(kind: dict[str, Any], name: str, **parts: Any) -> dict[str, Any]:
    """What is applied of an object of this kind."""
    return {
        "apiVersion": kind["apiVersion"],
        "kind": kind["kind"],
        "metadata": {"name": name},
        **parts,
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "s"},
    "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]},
}

BUDGET = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "b"},
    "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}},
}

REVISION = {
    "apiVersion": "apps/v1",
    "kind": "ControllerRevision",
    "metadata": {"name": "r"},
    "revision": 1,
    "data": {"a": 1},
}

REVISIONS = "/apis/apps/v1/namespaces/default/controllerrevisions"

BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
