"""The CustomResourceDefinition, made from the models: there is no second source of truth.

A CRD's schema is *structural* (Kubernetes documentation, "Specifying a structural schema"): no
references, no titles, no `null` alternatives, and unknown fields are pruned rather than forbidden.
What pydantic checks across fields, the API server checks by CEL rules, with the same sentences.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

from stageline_api import rules
from stageline_api.resource import API_VERSION, KIND, PipelineDeployment
from stageline_api.status import UNSEEN

Schema = dict[str, Any]

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "pipelinedeployments"
_DROPPED = ("title", "$defs", "const")
_RESOURCES = ("spec.resources", "spec.stageOverrides[].resources", "spec.router.resources")
_RULES = {
    "spec": rules.SPEC,
    "spec.model": rules.MODEL,
    "spec.model.uri": rules.URI,
    "spec.stageOverrides": rules.OVERRIDES,
    "spec.tolerations[]": rules.TOLERATION,
    "spec.stageOverrides[].tolerations[]": rules.TOLERATION,
    **dict.fromkeys(_RESOURCES, rules.RESOURCES),
    **dict.fromkeys((f"{path}.limits" for path in _RESOURCES), rules.QUANTITIES),
    **dict.fromkeys((f"{path}.requests" for path in _RESOURCES), rules.QUANTITIES),
}


def crd() -> dict[str, Any]:
    """The manifest, ready to be written as YAML."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["pld"],
            },
            "versions": [_version()],
        },
    }


def _version() -> dict[str, Any]:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema()},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            _column("Ready", _ready("status")),
            _column("Stages", ".status.stageCount", "integer"),
            _column("Pipelines", ".status.pipelines"),
            _column("Updated", ".status.updatedReplicas", "integer"),
            _column("Reason", _ready("reason")),
            _column("Message", _ready("message")) | {"priority": 1},  # with -o wide
            _column("Age", ".metadata.creationTimestamp", "date"),
        ],
    }


def schema() -> Schema:
    """The structural schema of the whole resource; the caller's own, to change."""
    return deepcopy(_schema())


@cache  # the models never change, and this takes 40 ms
def _schema() -> Schema:
    whole = PipelineDeployment.model_json_schema(by_alias=True)
    parts = whole["properties"]
    spec = _ruled(_structural(parts["spec"], whole["$defs"]), "spec")
    name = _structural(whole["$defs"]["Metadata"]["properties"]["name"], {})
    status = _structural(parts["status"], whole["$defs"])
    return {
        "type": "object",
        "description": whole["description"],
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": spec,
            "status": _without_defaults(status) | {"default": UNSEEN},
        },
    }


def _structural(node: Schema, defs: dict[str, Schema]) -> Schema:
    """`node` with its references put in place, without what a structural schema may not have."""
    node = {key: value for key, value in node.items() if key not in _DROPPED}
    if (reference := node.pop("$ref", None)) is not None:
        part = _structural(defs[reference.rsplit("/", 1)[1]], defs) | node
        return part if part.pop("default", ...) is None else _part(part)
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        (kept,) = (choice for choice in node.pop("anyOf") if choice != {"type": "null"})
        return _structural(kept | node, defs)
    if node.get("default", ...) in (None, []):
        del node["default"]
    if node.get("additionalProperties") is False:
        del node["additionalProperties"]
    if "x-sentence" in node:
        rule = rules.number_or_matches if "anyOf" in node else rules.matches
        node["x-kubernetes-validations"] = rule(node.pop("pattern"), node.pop("x-sentence"))
    if "exclusiveMaximum" in node:  # OpenAPI 3.0 has a flag where JSON Schema has a number
        node["maximum"] = node.pop("exclusiveMaximum") - 1
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _structural(node[key], defs)
            node[key].pop("default", None)  # an entry is there or not
    if "properties" in node:
        inside = node["properties"].items()
        node["properties"] = {name: _structural(child, defs) for name, child in inside}
    return node


def _ruled(node: Schema, path: str) -> Schema:
    """`node` with the rules of its parts."""
    node = dict(node)
    if path in _RULES:
        node["x-kubernetes-validations"] = _RULES[path]
    if "properties" in node:
        inside = node["properties"].items()
        node["properties"] = {name: _ruled(child, f"{path}.{name}") for name, child in inside}
    if "items" in node:
        node["items"] = _ruled(node["items"], f"{path}[]")
    return node


def _part(part: Schema) -> Schema:
    """A part that may be left out whole is there all the same, so that its defaults are."""
    return part if part.get("required") else {**part, "default": {}}


def _without_defaults(node: Schema) -> Schema:
    """Status says what was seen, so the API server must add nothing to what it says."""
    kept = {key: value for key, value in node.items() if key != "default"}
    if "properties" in kept:
        inside = kept["properties"].items()
        kept["properties"] = {name: _without_defaults(child) for name, child in inside}
    if "items" in kept:
        kept["items"] = _without_defaults(kept["items"])
    return kept


def _ready(field: str) -> str:
    return f'.status.conditions[?(@.type=="Ready")].{field}'


def _column(name: str, path: str, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path}
