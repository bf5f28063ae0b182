"""Plain HTTP to any API server, and answers made equal where two servers may differ."""

import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

PIPELINES = "/apis/stageline.dev/v1alpha1/namespaces/default/pipelinedeployments"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
CORE = "/api/v1/namespaces/default"

_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PASSING = (
    *("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"),
    *("clusterIP", "clusterIPs", "lastTransitionTime"),
)


@dataclass(frozen=True)
class Answer:
    """Status and body; a body that is no JSON is text."""

    code: int
    body: Any
    warnings: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        return self.body.get("reason", "")

    @property
    def message(self) -> str:
        return self.body.get("message", "")


def ask(
    url: str,
    method: str,
    path: str,
    body: Any = None,
    content_type: str = JSON,
    *,
    token: str = "",
    ca_file: str = "",
    accept: str = JSON,
) -> Answer:
    """One request, with the client's name `tests`."""
    headers = {"Content-Type": content_type, "User-Agent": "tests/1", "Accept": accept}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers, method=method)
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as response:
            return _answer(response.status, response.read(), response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.read(), error.headers)


def _answer(code: int, content: bytes, headers: Any) -> Answer:
    try:
        body = json.loads(content)
    except ValueError:
        body = content.decode()
    return Answer(code, body, tuple(headers.get_all("Warning", [])))


def normal(body: Any) -> Any:
    """`body` without what no two servers have alike: ids, versions, times, orders of problems."""
    if isinstance(body, list):
        return [normal(item) for item in body]
    if not isinstance(body, dict):
        return _UID.sub("UID", body.split("\n@@")[0]) if isinstance(body, str) else body
    result = {
        key: "*" if key in _PASSING and not isinstance(value, dict) else normal(value)
        for key, value in body.items()
        if not (key == "generateName" and not value)
    }
    if causes := (body.get("details") or {}).get("causes"):
        # CRDs with a scale subresource are told of bad replicas twice.
        again = (".spec.replicas", ".status.replicas")
        told = [normal(cause) for cause in causes if cause["field"] not in again]
        result["details"]["causes"] = _sorted(told)
        result["message"] = "*"  # says the same as the causes, in an order of its own
    if result.get("kind") == "Table":
        for column in result["columnDefinitions"]:
            del column["description"]
        for row in result["rows"]:
            row["cells"] = [_ageless(cell) for cell in row["cells"]]
    if "regarding" in body or "involvedObject" in body:
        result["metadata"].pop("managedFields", None)  # nobody applies events
    if claims := result.get("managedFields"):
        result["managedFields"] = _sorted(map(_claim, claims))
    return result


def _sorted(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def _ageless(cell: Any) -> Any:
    return re.sub(r"^\d+s$", "AGE", cell) if isinstance(cell, str) else cell


def _claim(entry: Any) -> Any:
    fields = _leaves(entry["fieldsV1"])
    return {key: value for key, value in entry.items() if key != "time"} | {"fieldsV1": fields}


def _leaves(fields: Any) -> Any:
    """Which fields, not which containers: Go's structs are never absent, so nobody adds them."""
    return {key: _leaves(inside) for key, inside in fields.items() if key != "."}


def pipeline(name: str = "llama", **spec: Any) -> dict[str, Any]:
    """A PipelineDeployment."""
    return {
        "apiVersion": "stageline.dev/v1alpha1",
        "kind": "PipelineDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"uri": "file:///models/llama"}, **spec},
    }


def pod(name: str = "p", node: str = "", **meta: Any) -> dict[str, Any]:
    """A Pod of one container, on a node if one is named."""
    placed = {"nodeName": node} if node else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **meta},
        "spec": {"containers": [{"name": "c", "image": "busybox:1"}], **placed},
    }


def deployment(name: str = "d", **container: Any) -> dict[str, Any]:
    """A Deployment of one container."""
    inside = {"name": "c", "image": "busybox", **container}
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [inside]}},
        },
    }


def config_map(name: str = "c", **data: str) -> dict[str, Any]:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
