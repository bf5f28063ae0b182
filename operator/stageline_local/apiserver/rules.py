"""What Kubernetes demands of built-in objects beyond their types, as far as it matters here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from stageline_local.apiserver.errors import Problem, shown
from stageline_local.apiserver.kinds import Kind, Object
from stageline_local.apiserver.names import LABEL, qualified_name_problems
from stageline_local.apiserver.schema import Node

_IMMUTABLE: Final = "field is immutable"
_POD_UPDATE: Final = (
    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)
_MOVABLE: Final = ("activeDeadlineSeconds", "tolerations")


def problems(kind: Kind, node: Node, obj: Object, old: Object | None) -> list[Problem]:
    """What is wrong with an object of a built-in kind; `old` is its state before, if any."""
    found: list[Problem] = []
    is_new = old is None or old.get("spec") != obj.get("spec")
    if is_new and "spec" in node.properties:
        found += _required(node.properties["spec"], obj.get("spec"), "spec")
    if is_new and not found:  # what follows takes required fields for granted
        for check in _CHECKS.get(kind.plural, ()):
            found += check(obj)
    if old is not None:
        for path in _FIXED.get(kind.plural, ()):
            found += _fixed(path, old, obj)
        if kind.plural == "pods":
            found += _fixed_pod(old["spec"], obj["spec"])
    return found


def _required(node: Node, value: Any, path: str) -> Iterator[Problem]:
    if isinstance(value, dict):
        for name in node.raw.get("required", ()):
            if value.get(name) in (None, "", []):
                yield Problem(f"{path}.{name}", "Required value", "FieldValueRequired")
        for key, child in value.items():
            yield from _required(node.child(key), child, f"{path}.{key}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _required(node.item(), item, f"{path}[{place}]")


def _pod(obj: Object) -> Iterator[Problem]:
    yield from _pod_spec(obj.get("spec", {}), "spec")


def _pod_spec(spec: Object, path: str) -> Iterator[Problem]:
    if not spec.get("containers"):
        yield Problem(f"{path}.containers", "Required value", "FieldValueRequired")
    volumes = {volume["name"] for volume in spec.get("volumes", ())}
    yield from _distinct(spec.get("volumes", ()), f"{path}.volumes")
    for kind in ("initContainers", "containers"):
        yield from _distinct(spec.get(kind, ()), f"{path}.{kind}")
        for place, container in enumerate(spec.get(kind, ())):
            yield from _container(container, volumes, f"{path}.{kind}[{place}]")
    for name in ("hostname", "subdomain"):
        for wrong in LABEL.problems(spec[name]) if spec.get(name) else ():
            yield Problem(f"{path}.{name}", f"Invalid value: {shown(spec[name])}: {wrong}")
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        yield _unsupported(f"{path}.restartPolicy", spec.get("restartPolicy"))


def _container(container: Object, volumes: set[str], path: str) -> Iterator[Problem]:
    if not container.get("image"):
        yield Problem(f"{path}.image", "Required value", "FieldValueRequired")
    for wrong in LABEL.problems(container["name"]):
        yield Problem(f"{path}.name", f"Invalid value: {shown(container['name'])}: {wrong}")
    for place, port in enumerate(container.get("ports", ())):
        if not 0 < port["containerPort"] < 65536:
            message = (
                f"Invalid value: {port['containerPort']}: must be between 1 and 65535, inclusive"
            )
            yield Problem(f"{path}.ports[{place}].containerPort", message)
    for place, mount in enumerate(container.get("volumeMounts", ())):
        if mount["name"] not in volumes:
            message = f"Not found: {shown(mount['name'])}"
            yield Problem(f"{path}.volumeMounts[{place}].name", message, "FieldValueNotFound")


def _distinct(items: Any, path: str) -> Iterator[Problem]:
    names = [item["name"] for item in items]
    for place, name in enumerate(names):
        if name in names[:place]:
            message = f"Duplicate value: {shown(name)}"
            yield Problem(f"{path}[{place}].name", message, "FieldValueDuplicate")


def _unsupported(field: str, value: Any, *allowed: str) -> Problem:
    choices = ", ".join(shown(each) for each in allowed or ("Always", "OnFailure", "Never"))
    message = f"Unsupported value: {shown(value)}: supported values: {choices}"
    return Problem(field, message, "FieldValueNotSupported")


def _workload(obj: Object) -> Iterator[Problem]:
    """Of Deployments and ReplicaSets: the template must be one that the selector finds."""
    spec = obj["spec"]
    template = spec.get("template", {})
    labels = template.get("metadata", {}).get("labels", {})
    wanted = spec["selector"].get("matchLabels", {})
    if not wanted and not spec["selector"].get("matchExpressions"):
        message = "Invalid value: {}: empty selector is invalid for deployment"
        yield Problem("spec.selector", message)
    if any(labels.get(key) != value for key, value in wanted.items()):
        message = f"Invalid value: {shown(labels)}: `selector` does not match template `labels`"
        yield Problem("spec.template.metadata.labels", message)
    yield from _pod_spec(template.get("spec", {}), "spec.template.spec")
    policy = template.get("spec", {}).get("restartPolicy")
    if policy in ("OnFailure", "Never"):
        yield _unsupported("spec.template.spec.restartPolicy", policy, "Always")
    if spec["replicas"] < 0:
        message = f"Invalid value: {spec['replicas']}: must be greater than or equal to 0"
        yield Problem("spec.replicas", message)


def _service(obj: Object) -> Iterator[Problem]:
    spec = obj["spec"]
    if not spec.get("ports") and spec.get("clusterIP") != "None":
        yield Problem("spec.ports", "Required value", "FieldValueRequired")
    for place, port in enumerate(spec.get("ports", ())):
        if len(spec["ports"]) > 1 and not port.get("name"):
            yield Problem(f"spec.ports[{place}].name", "Required value", "FieldValueRequired")
        if not 0 < port["port"] < 65536:
            message = f"Invalid value: {port['port']}: must be between 1 and 65535, inclusive"
            yield Problem(f"spec.ports[{place}].port", message)
    for key in spec.get("selector", {}):
        yield from qualified_name_problems("spec.selector", key)


def _budget(obj: Object) -> Iterator[Problem]:
    spec = obj.get("spec", {})
    if "minAvailable" in spec and "maxUnavailable" in spec:
        message = "Invalid value: minAvailable and maxUnavailable cannot be both set"
        yield Problem("spec", message)


def _crd(obj: Object) -> Iterator[Problem]:
    names = obj["spec"]["names"]
    wanted = f"{names['plural']}.{obj['spec']['group']}"
    if obj["metadata"]["name"] != wanted:
        message = 'must be spec.names.plural+"."+spec.group'
        name = shown(obj["metadata"]["name"])
        yield Problem("metadata.name", f"Invalid value: {name}: {message}")


_CHECKS: Final[Mapping[str, tuple[Callable[[Object], Iterator[Problem]], ...]]] = {
    "pods": (_pod,),
    "deployments": (_workload,),
    "replicasets": (_workload,),
    "services": (_service,),
    "poddisruptionbudgets": (_budget,),
    "customresourcedefinitions": (_crd,),
}
_FIXED: Final[Mapping[str, tuple[str, ...]]] = {
    "deployments": ("spec.selector",),
    "replicasets": ("spec.selector",),
    "controllerrevisions": ("data",),
    "services": ("spec.clusterIP",),
    "secrets": ("type",),
}


def _fixed(path: str, old: Object, new: Object) -> Iterator[Problem]:
    before, after = _at(old, path), _at(new, path)
    if before is not None and before != after:
        message = "may not change once set" if path == "spec.clusterIP" else _IMMUTABLE
        yield Problem(path, f"Invalid value: {shown(after)}: {message}")


def _fixed_pod(old: Object, new: Object) -> Iterator[Problem]:
    if _firm(old) != _firm(new):
        yield Problem("spec", _POD_UPDATE, "FieldValueForbidden")


def _firm(spec: Object) -> Object:
    """What of a pod's spec may never change."""
    result = {key: value for key, value in spec.items() if key not in _MOVABLE}
    for kind in ("containers", "initContainers"):
        if kind in spec:
            result[kind] = [{**each, "image": ""} for each in spec[kind]]
    return result


def _at(obj: Object, path: str) -> Any:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
