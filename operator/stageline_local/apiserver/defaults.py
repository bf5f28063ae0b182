"""What the server fills in when a built-in object leaves it out, as Kubernetes does.

The operator compares what it wants with what there is, so what there is must look as it does in
a real cluster.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from stageline_local.apiserver.kinds import Kind, Object

_FILE_MODE: Final = 0o644
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")


def defaulted(kind: Kind, obj: Object) -> Object:
    """`obj` of a built-in kind with the defaults of its version."""
    match kind.plural:
        case "pods":
            return {**obj, "spec": _pod(obj.get("spec", {})), **_pod_status(obj)}
        case "deployments":
            return {**obj, "spec": _deployment(obj.get("spec", {}))}
        case "replicasets":
            return {**obj, "spec": _replica_set(obj.get("spec", {}))}
        case "services":
            return {**obj, "spec": _service(obj.get("spec", {}))}
        case "secrets":
            return _secret(obj)
        case "namespaces":
            return _namespace(obj)
        case "customresourcedefinitions":
            return {**obj, "spec": _crd(obj["spec"])}
    return obj


def first_status(kind: Kind, obj: Object) -> Object | None:
    """What a new object's status is before anyone has written it; None for no status."""
    match kind.plural:
        case "pods":
            return {"phase": "Pending", "qosClass": _quality(obj["spec"])}
        case "namespaces":
            return {"phase": "Active"}
        case "services":
            return {"loadBalancer": {}}
        case "deployments":
            return {}
        case "replicasets":
            return {"replicas": 0}
        case "poddisruptionbudgets":
            names = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
            return dict.fromkeys(names, 0)
        case "customresourcedefinitions":
            return _crd_status(obj)
    return None


def _pod(spec: Object) -> Object:
    template = pod_template(spec)
    containers = [_with_requests(each) for each in template["containers"]]
    return {"enableServiceLinks": True, **template, "containers": containers}


def _pod_status(obj: Object) -> Object:
    status = obj.get("status", {})
    if not status.get("podIP") or status.get("podIPs"):
        return {}
    return {"status": {**status, "podIPs": [{"ip": status["podIP"]}]}}


def pod_template(spec: Object) -> Object:
    """A pod's spec with the defaults that it has in templates as well."""
    result = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        **spec,
        "containers": [_container(each) for each in spec.get("containers", [])],
    }
    if "initContainers" in spec:
        result["initContainers"] = [_container(each) for each in spec["initContainers"]]
    if "volumes" in spec:
        result["volumes"] = [_volume(each) for each in spec["volumes"]]
    if account := spec.get("serviceAccountName"):
        result["serviceAccount"] = account
    return result


def _container(container: Object) -> Object:
    image = container.get("image", "")
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    policy = "Always" if tag in ("", "latest") and "@" not in image else "IfNotPresent"
    result = {
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": policy,
        **container,
    }
    if "ports" in container:
        result["ports"] = [{"protocol": "TCP", **port} for port in container["ports"]]
    if "env" in container:
        result["env"] = [_variable(each) for each in container["env"]]
    for name in _PROBES:
        if name in container:
            result[name] = _probe(container[name])
    return result


def _with_requests(container: Object) -> Object:
    """What is limited and not requested is requested as much."""
    resources = container.get("resources", {})
    if "limits" not in resources:
        return container
    requests = {**resources["limits"], **resources.get("requests", {})}
    return {**container, "resources": {**resources, "requests": requests}}


def _variable(variable: Object) -> Object:
    source = variable.get("valueFrom", {})
    if "fieldRef" not in source:
        return variable
    reference = {"apiVersion": "v1", **source["fieldRef"]}
    return {**variable, "valueFrom": {**source, "fieldRef": reference}}


def _probe(probe: Object) -> Object:
    times = {
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    result = {**times, **probe}
    if "grpc" in probe:
        result["grpc"] = {"service": "", **probe["grpc"]}
    if "httpGet" in probe:
        result["httpGet"] = {"path": "/", "scheme": "HTTP", **probe["httpGet"]}
    return result


def _volume(volume: Object) -> Object:
    result = dict(volume)
    for name in ("configMap", "secret", "downwardAPI", "projected"):
        if name in volume:
            result[name] = {"defaultMode": _FILE_MODE, **volume[name]}
    if "hostPath" in volume:
        result["hostPath"] = {"type": "", **volume["hostPath"]}
    return result if len(result) > 1 else {**result, "emptyDir": {}}


def _with_template(spec: Object) -> Object:
    if "template" not in spec:
        return spec
    template = spec["template"]
    return {**spec, "template": {**template, "spec": pod_template(template.get("spec", {}))}}


def _deployment(spec: Object) -> Object:
    strategy = {"type": "RollingUpdate", **spec.get("strategy", {})}
    if strategy["type"] == "RollingUpdate":
        room = {"maxUnavailable": "25%", "maxSurge": "25%"}
        strategy["rollingUpdate"] = {**room, **strategy.get("rollingUpdate", {})}
    defaults = {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}
    return {**defaults, **_with_template(spec), "strategy": strategy}


def _replica_set(spec: Object) -> Object:
    return {"replicas": 1, **_with_template(spec)}


def _service(spec: Object) -> Object:
    ports = [
        {"protocol": "TCP", **port, "targetPort": port.get("targetPort", port.get("port"))}
        for port in spec.get("ports", [])
    ]
    defaults = {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}
    return {**defaults, **spec, **({"ports": ports} if ports else {})}


def _secret(obj: Object) -> Object:
    plain = obj.get("stringData", {})
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items()}
    result = {"type": "Opaque", **obj}
    result.pop("stringData", None)
    return {**result, "data": {**obj.get("data", {}), **encoded}} if encoded else result


def _namespace(obj: Object) -> Object:
    meta = obj["metadata"]
    labels = {**meta.get("labels", {}), "kubernetes.io/metadata.name": meta["name"]}
    return {**obj, "metadata": {**meta, "labels": labels}}


def _crd(spec: Object) -> Object:
    names = spec["names"]
    defaults = {"singular": names["kind"].lower(), "listKind": f"{names['kind']}List"}
    return {"conversion": {"strategy": "None"}, **spec, "names": {**defaults, **names}}


def _crd_status(obj: Object) -> Object:
    """Established at once: there is nothing here that takes time."""
    when = obj["metadata"]["creationTimestamp"]
    said = {
        "NamesAccepted": ("NoConflicts", "no conflicts found"),
        "Established": ("InitialNamesAccepted", "the initial names have been accepted"),
    }
    conditions: list[Any] = [
        {
            "type": kind,
            "status": "True",
            "lastTransitionTime": when,
            "reason": reason,
            "message": message,
        }
        for kind, (reason, message) in said.items()
    ]
    stored = [version["name"] for version in obj["spec"]["versions"] if version["storage"]]
    names = obj["spec"]["names"]
    return {"conditions": conditions, "acceptedNames": names, "storedVersions": stored}


def _quality(spec: Object) -> str:
    """Kubernetes' quality of service class."""
    asked = [each.get("resources", {}) for each in spec.get("containers", [])]
    if not any(each.get("limits") or each.get("requests") for each in asked):
        return "BestEffort"
    guaranteed = all(
        {"cpu", "memory"} <= each.get("limits", {}).keys()
        and each.get("requests") == each["limits"]
        for each in asked
    )
    return "Guaranteed" if guaranteed else "Burstable"
