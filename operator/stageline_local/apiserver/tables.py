"""Lists as `kubectl get` prints them: the columns of each kind, filled from its objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from stageline_local.apiserver import jsonpath
from stageline_local.apiserver.kinds import Object
from stageline_local.apiserver.pod_columns import pod_columns
from stageline_local.apiserver.registry import Served

_NONE: Final = "<none>"
_UNKNOWN: Final = "<unknown>"
Cells = Callable[[Object, datetime], list[Any]]


class Column(NamedTuple):
    """One column; those of a priority above 0 are only printed by `-o wide`."""

    name: str
    type: str = "string"
    priority: int = 0
    format: str = ""


class Layout(NamedTuple):
    """The columns of a kind, and what fills them."""

    columns: tuple[Column, ...]
    cells: Cells
    named: bool = True
    """Whether a column with the name comes before the others."""


def table(
    served: Served, objects: Sequence[Object], include: str = "", now: datetime | None = None
) -> Object:
    """The Table of these objects; `include` says how much of each: Object, None or its metadata."""
    moment = now or datetime.now(UTC)
    layout = _custom(served.declared) if served.kind.custom else _layout(served.kind.plural)
    names = (Column("Name", format="name"),) if layout.named else ()
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": column.name,
                "priority": column.priority,
            }
            for column in (*names, *layout.columns)
        ],
        "rows": [
            {
                "cells": [obj["metadata"]["name"]] * layout.named + layout.cells(obj, moment),
                "object": _included(obj, include),
            }
            for obj in objects
        ],
    }


def _included(obj: Object, include: str) -> Object | None:
    match include:
        case "Object":
            return obj
        case "None":
            return None
    head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    return {**head, "metadata": obj["metadata"]}


def age(text: str | None, now: datetime) -> str:
    """Time since then as Kubernetes prints it: 42s, 3m5s, 7h12m, 4d2h."""
    if not text:
        return _UNKNOWN
    seconds = max(int((now - datetime.fromisoformat(text)).total_seconds()), 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    return f"{days}d" if days < 730 else _two(days // 365, "y", days % 365, "d")


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


def _layout(plural: str) -> Layout:
    return _LAYOUTS.get(plural, Layout((Column("Age"),), lambda obj, now: [_age(obj, now)]))


def _age(obj: Object, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _custom(declared: Object) -> Layout:
    """What additionalPrinterColumns say, or the age alone."""
    said = declared.get("additionalPrinterColumns")
    if not said:
        return _layout("")
    columns = tuple(
        Column(each["name"], each["type"], each.get("priority", 0), each.get("format", ""))
        for each in said
    )

    def cells(obj: Object, now: datetime) -> list[Any]:
        return [_printed(each, jsonpath.at(obj, each["jsonPath"]), now) for each in said]

    return Layout(columns, cells)


def _printed(column: Object, value: Any, now: datetime) -> Any:
    """A value in a column of its type; one of another type leaves the cell empty."""
    if value is None:
        return None
    match column["type"]:
        case "date":
            return age(str(value), now)
        case "integer":
            return value if isinstance(value, int) else None
        case "number":
            return value if isinstance(value, int | float) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _selector(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or _NONE


def _images(obj: Object) -> list[str]:
    containers = obj["spec"].get("template", {}).get("spec", {}).get("containers", [])
    names = ",".join(each["name"] for each in containers)
    images = ",".join(each.get("image", "") for each in containers)
    return [names, images, _selector(obj["spec"]["selector"].get("matchLabels"))]


def _deployment(obj: Object, now: datetime) -> list[Any]:
    status, wanted = obj.get("status", {}), obj["spec"].get("replicas", 1)
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    ready = f"{status.get('readyReplicas', 0)}/{wanted}"
    return [ready, *counts, _age(obj, now), *_images(obj)]


def _replica_set(obj: Object, now: datetime) -> list[Any]:
    status = obj.get("status", {})
    counts = [obj["spec"].get("replicas", 1), status.get("replicas", 0)]
    return [*counts, status.get("readyReplicas", 0), _age(obj, now), *_images(obj)]


def _service(obj: Object, now: datetime) -> list[Any]:
    spec = obj["spec"]
    ports = ",".join(
        f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}"
        f"/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports", ())
    )
    address = spec.get("clusterIP") or _NONE
    return [
        *(spec.get("type", "ClusterIP"), address, _NONE, ports or _NONE),
        *(_age(obj, now), _selector(spec.get("selector"))),
    ]


def _event(obj: Object, now: datetime) -> list[Any]:
    """Of either face: events.k8s.io has other names for the same fields."""
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    count = (obj.get("series") or {}).get("count") or obj.get("count") or 1
    seen = obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp")
    seen = (obj.get("series") or {}).get("lastObservedTime") or seen or obj.get("eventTime")
    first = obj.get("firstTimestamp") or obj.get("eventTime") or seen
    created = obj["metadata"].get("creationTimestamp")
    message = str(obj.get("message") or obj.get("note") or "").strip()
    source = (obj.get("source") or {}).get("component") or obj.get("reportingComponent", "")
    where = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
    return [
        *(age(seen or created, now), obj.get("type", ""), obj.get("reason", ""), where),
        *(about.get("fieldPath", ""), source, message, age(first or created, now)),
        *(count, obj["metadata"]["name"]),
    ]


def _node(obj: Object, now: datetime) -> list[Any]:
    status, labels = obj.get("status", {}), obj["metadata"].get("labels", {})
    ready = next(
        (each["status"] for each in status.get("conditions", ()) if each["type"] == "Ready"),
        "Unknown",
    )
    state = {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown")
    if obj.get("spec", {}).get("unschedulable"):
        state += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))
    info = status.get("nodeInfo", {})
    addresses = {each["type"]: each["address"] for each in status.get("addresses", ())}
    return [
        *(state, ",".join(roles) or _NONE, _age(obj, now), info.get("kubeletVersion", "")),
        *(addresses.get("InternalIP", _NONE), addresses.get("ExternalIP", _NONE)),
        info.get("osImage") or _UNKNOWN,
        info.get("kernelVersion") or _UNKNOWN,
        info.get("containerRuntimeVersion") or _UNKNOWN,
    ]


def _budget(obj: Object, now: datetime) -> list[Any]:
    spec, status = obj["spec"], obj.get("status", {})
    return [
        *(str(spec.get("minAvailable", "N/A")), str(spec.get("maxUnavailable", "N/A"))),
        *(status.get("disruptionsAllowed", 0), _age(obj, now)),
    ]


def _revision(obj: Object, now: datetime) -> list[Any]:
    owners = obj["metadata"].get("ownerReferences", ())
    owner = next((each for each in owners if each.get("controller")), None)
    name = _NONE
    if owner is not None:
        group = owner["apiVersion"].rpartition("/")[0]
        name = f"{owner['kind'].lower()}{'.' + group if group else ''}/{owner['name']}"
    return [name, obj.get("revision", 0), _age(obj, now)]


def _columns(
    *names: str, wide: Sequence[str] = (), integers: Sequence[str] = ()
) -> tuple[Column, ...]:
    shown = [(name, 0) for name in names] + [(name, 1) for name in wide]
    return tuple(
        Column(name, "integer" if name in integers else "string", priority)
        for name, priority in shown
    )


_WORKLOAD_WIDE: Final = ("Containers", "Images", "Selector")
_LAYOUTS: Final[Mapping[str, Layout]] = {
    "pods": Layout(
        _columns(
            *("Ready", "Status", "Restarts", "Age"),
            wide=("IP", "Node", "Nominated Node", "Readiness Gates"),
        ),
        lambda obj, now: pod_columns(obj, lambda text: age(text, now)),
    ),
    "deployments": Layout(
        _columns(
            *("Ready", "Up-to-date", "Available", "Age"),
            wide=_WORKLOAD_WIDE,
        ),
        _deployment,
    ),
    "replicasets": Layout(
        _columns(
            *("Desired", "Current", "Ready", "Age"),
            wide=_WORKLOAD_WIDE,
            integers=("Desired", "Current", "Ready"),
        ),
        _replica_set,
    ),
    "services": Layout(
        _columns("Type", "Cluster-IP", "External-IP", "Port(s)", "Age", wide=("Selector",)),
        _service,
    ),
    "events": Layout(
        (
            *_columns("Last Seen", "Type", "Reason", "Object", wide=("Subobject", "Source")),
            *_columns("Message", wide=("First Seen", "Count")),
            Column("Name", priority=1, format="name"),
        ),
        _event,
        named=False,
    ),
    "nodes": Layout(
        _columns(
            *("Status", "Roles", "Age", "Version"),
            wide=("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
        ),
        _node,
    ),
    "configmaps": Layout(
        _columns("Data", "Age"),
        lambda obj, now: [
            len(obj.get("data", {})) + len(obj.get("binaryData", {})),
            _age(obj, now),
        ],
    ),
    "secrets": Layout(
        _columns("Type", "Data", "Age"),
        lambda obj, now: [obj["type"], len(obj.get("data", {})), _age(obj, now)],
    ),
    "serviceaccounts": Layout(
        _columns("Secrets", "Age"), lambda obj, now: [len(obj.get("secrets", [])), _age(obj, now)]
    ),
    "namespaces": Layout(
        _columns("Status", "Age"),
        lambda obj, now: [obj.get("status", {}).get("phase", ""), _age(obj, now)],
    ),
    "poddisruptionbudgets": Layout(
        _columns(
            *("Min Available", "Max Unavailable", "Allowed Disruptions", "Age"),
            integers=("Allowed Disruptions",),
        ),
        _budget,
    ),
    "controllerrevisions": Layout(_columns("Controller", "Revision", "Age"), _revision),
    "leases": Layout(
        _columns("Holder", "Age"),
        lambda obj, now: [obj.get("spec", {}).get("holderIdentity", ""), _age(obj, now)],
    ),
    "customresourcedefinitions": Layout(
        _columns("Created At"), lambda obj, now: [obj["metadata"]["creationTimestamp"]]
    ),
}
