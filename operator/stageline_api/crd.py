"""The CustomResourceDefinition, made from the models: there is no second source of truth.

A CRD's schema is *structural* (Kubernetes documentation, "Specifying a structural schema"): no
references, no titles, no `null` alternatives, and unknown fields are pruned rather than forbidden.
What pydantic checks across fields, the API server checks by CEL rules, with the same sentences.
"""

from __future__ import annotations

from typing import Any

from stageline_api.resource import API_VERSION, KIND, PipelineDeployment

Schema = dict[str, Any]

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "pipelinedeployments"
_DROPPED = ("title", "$defs", "const")
_SPEC_RULES = [
    {
        "rule": "!has(self.pipeline.stages) || !has(self.pipeline.partition) || "
        "size(self.pipeline.partition) == self.pipeline.stages",
        "message": "spec.pipeline.partition must have as many numbers as spec.pipeline.stages "
        "says: leave one of the two out, or make them agree",
    },
]
_URI_RULES = [
    {
        "rule": "self.matches('^(hf|pvc|s3|file)://.+')",
        "message": "spec.model.uri must begin with hf://, pvc://, s3:// or file://",
    },
]


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
            _column("Pipelines", ".status.readyReplicas", "integer"),
            _column("Updated", ".status.updatedReplicas", "integer"),
            _column("Reason", _ready("reason")),
            _column("Age", ".metadata.creationTimestamp", "date"),
        ],
    }


def schema() -> Schema:
    """The structural schema of the whole resource."""
    whole = PipelineDeployment.model_json_schema(by_alias=True)
    parts = whole["properties"]
    spec = _structural(parts["spec"], whole["$defs"])
    spec["x-kubernetes-validations"] = _SPEC_RULES
    spec["properties"]["model"]["properties"]["uri"]["x-kubernetes-validations"] = _URI_RULES
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
            "status": _without_defaults(status),
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
    if "exclusiveMaximum" in node:  # OpenAPI 3.0 has a flag where JSON Schema has a number
        node["maximum"] = node.pop("exclusiveMaximum") - 1
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _structural(node[key], defs)
    if "properties" in node:
        inside = node["properties"].items()
        node["properties"] = {name: _structural(child, defs) for name, child in inside}
    return node


def _part(part: Schema) -> Schema:
    """A part that may be left out whole is there all the same, so that its defaults are."""
    return part if part.get("required") else {**part, "default": {}}


def _without_defaults(node: Schema) -> Schema:
    """Status says what was seen, so the API server must add nothing to it."""
    kept = {key: value for key, value in node.items() if key != "default"}
    if "properties" in kept:
        inside = kept["properties"].items()
        kept["properties"] = {name: _without_defaults(child) for name, child in inside}
    if "items" in kept:
        kept["items"] = _without_defaults(kept["items"])
    return kept


def _ready(field: str) -> str:
    return f'.status.conditions[?(@.type=="Ready")].{field}'


def _column(name: str, path: str, kind: str = "string") -> dict[str, str]:
    return {"name": name, "type": kind, "jsonPath": path}
