"""What the cluster adds to objects of its own accord, and no client owns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from stageline_local.apiserver.kinds import Kind, Object

_TOLERATIONS: Final = tuple(
    {
        "key": f"node.kubernetes.io/{trouble}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 300,
    }
    for trouble in ("not-ready", "unreachable")
)


def admitted(kind: Kind, obj: Object, old: Object | None, cluster_ip: Callable[[], str]) -> Object:
    """`obj` as the cluster takes it; `cluster_ip` gives an address that is free."""
    match kind.plural:
        case "pods":
            return {**obj, "spec": _pod(obj["spec"])}
        case "services":
            return {**obj, "spec": _service(obj["spec"], old, cluster_ip)}
        case "namespaces":
            return _namespace(obj)
    return obj


def _pod(spec: Object) -> Object:
    own = spec.get("tolerations", [])
    keys = [toleration.get("key") for toleration in own]
    added = [each for each in _TOLERATIONS if each["key"] not in keys]
    rank = {"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}
    return {**rank, **spec, "tolerations": own + added}


def _service(spec: Object, old: Object | None, cluster_ip: Callable[[], str]) -> Object:
    known = old["spec"]["clusterIP"] if old is not None else ""
    address = spec.get("clusterIP") or known or cluster_ip()
    families = {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
    return {**families, **spec, "clusterIP": address, "clusterIPs": [address]}


def _namespace(obj: Object) -> Object:
    if "deletionTimestamp" in obj["metadata"]:
        return obj
    return {**obj, "spec": {"finalizers": ["kubernetes"], **obj.get("spec", {})}}
