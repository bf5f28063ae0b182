"""The CustomResourceDefinition: structural, small, and of one mind with the models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from stageline_api.crd import crd, schema
from stageline_api.manifest import read_manifest
from stageline_api.resource import PipelineDeployment
from stageline_api.status import UNSEEN, PipelineDeploymentStatus

FORBIDDEN = {"$ref", "$defs", "title", "const", "exclusiveMaximum", "exclusiveMinimum", "oneOf"}
MINIMAL = {"model": {"uri": "file:///m"}}


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


def defaulted(node: dict[str, Any], value: Any) -> Any:
    """What the API server makes of a value: absent fields get their defaults, depth first."""
    if isinstance(value, dict):
        value = dict(value)
        for name, child in node.get("properties", {}).items():
            if name not in value and "default" in child:
                value[name] = child["default"]
            if name in value:
                value[name] = defaulted(child, value[name])
    return value


PARTS = dict(nodes(schema()))


@pytest.mark.parametrize("path", PARTS)
def test_every_part_is_structural(path):
    node = PARTS[path]
    assert not FORBIDDEN & set(node), f"{path} has what a structural schema may not have"
    assert "type" in node or node.get("x-kubernetes-int-or-string"), f"{path} has no type"
    assert not {"properties", "additionalProperties"} <= set(node), f"{path} is map and struct"
    if node.get("type") == "array":
        assert "items" in node, f"{path} is an array of nothing"


def test_the_api_server_fills_in_what_the_models_do():
    filled = defaulted(schema()["properties"]["spec"], MINIMAL)
    read = PipelineDeployment.model_validate(
        {"apiVersion": "stageline.dev/v1alpha1", "kind": "PipelineDeployment",
         "metadata": {"name": "m"}, "spec": MINIMAL}
    )  # fmt: skip
    ours = read.spec.model_dump(mode="json", exclude_none=True)
    empty = (  # left out there, empty here
        "stageOverrides", "limits", "requests", "nodeSelector", "tolerations",
        "topologySpreadConstraints",
    )  # fmt: skip
    assert without(filled, empty) == without(ours, empty)
    again = {**yaml.safe_load("{apiVersion: stageline.dev/v1alpha1, kind: PipelineDeployment}"),
             "metadata": {"name": "m"}, "spec": filled}  # fmt: skip
    assert read_manifest(yaml.safe_dump(again), "defaulted").spec == read.spec


def without(value: Any, names: tuple[str, ...]) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: without(v, names) for k, v in value.items() if k not in names or v}


def test_status_is_never_filled_in_but_where_there_is_none():
    status = schema()["properties"]["status"]
    assert status.pop("default") == UNSEEN
    assert PipelineDeploymentStatus.model_validate(UNSEEN).conditions[0].status == "Unknown"
    assert [path for path, node in nodes(status) if "default" in node] == []


def test_conditions_are_keyed_so_that_others_may_add_theirs_and_stages_are_one_writers():
    properties = schema()["properties"]["status"]["properties"]
    assert properties["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert "type" in properties["conditions"]["items"]["required"]
    assert properties["stages"]["x-kubernetes-list-type"] == "atomic"


def test_it_fits_the_annotation_of_client_side_apply():
    assert len(json.dumps(crd())) < 60 << 10


def test_kubectl_get_shows_what_a_user_looks_for():
    (version,) = crd()["spec"]["versions"]
    columns = {each["name"]: each for each in version["additionalPrinterColumns"]}
    always = [name for name, column in columns.items() if not column.get("priority")]
    assert always == ["Ready", "Stages", "Pipelines", "Updated", "Reason", "Age"]
    fields = schema()["properties"]["status"]["properties"]
    for name in ("Stages", "Pipelines", "Updated"):
        assert columns[name]["jsonPath"].removeprefix(".status.") in fields
    assert crd()["spec"]["names"]["shortNames"] == ["pld"]


@pytest.mark.parametrize("path", PARTS)
def test_every_rule_says_what_to_do(path):
    for rule in PARTS[path].get("x-kubernetes-validations", ()):
        assert len(rule["message"]) > 20, f"{path}: {rule['rule']} says nothing"
        assert "pattern" not in PARTS[path], f"{path} answers with its pattern as well"


def test_kubectl_scale_and_get_know_where_to_look():
    (version,) = crd()["spec"]["versions"]
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.replicas"
    properties = schema()["properties"]
    for name in ("replicas", "selector", "readyReplicas", "updatedReplicas"):
        assert name in properties["status"]["properties"], f"status has no {name}"
    assert "replicas" in properties["spec"]["properties"]
