"""A CRD that is older than the operator is noticed, and so is its successor."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from stageline_api.crd import crd
from stageline_operator.cluster import Busy
from stageline_operator.definition import CRD, NAME, Definition
from stageline_operator.dropped import dropped_fields


def without(*path):
    """The CRD without the property at this path of names; `[]` goes into the items of a list."""
    old = copy.deepcopy(crd())
    node = old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in path[:-1]:
        node = node["items"] if name == "[]" else node["properties"][name]
    del node["properties"][path[-1]]
    return old


def places(node, path=()):
    for name, child in node.get("properties", {}).items():
        yield (*path, name)
        yield from places(child, (*path, name))
    if "items" in node:
        yield from places(node["items"], (*path, "[]"))


SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_the_operators_own_crd_drops_nothing():
    assert dropped_fields(crd()) == ()


def test_a_newer_crd_drops_nothing():
    newer = copy.deepcopy(crd())
    parts = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    parts["spec"]["properties"]["unheard"] = {"type": "string"}
    newer["spec"]["versions"].append({"name": "v9", "schema": {}})
    assert dropped_fields(newer) == ()


@given(st.sampled_from(sorted(places(SCHEMA))))
def test_whatever_an_old_crd_lacks_is_named_once(path):
    (name,) = dropped_fields(without(*path))
    assert name == ".".join(path).replace(".[]", "[]")


def test_a_crd_of_another_version_drops_all():
    other = copy.deepcopy(crd())
    other["spec"]["versions"][0]["name"] = "v1alpha0"
    assert dropped_fields(other) == ("all of v1alpha1",)


class OneCrd:
    """A cluster of which nothing is asked but the CRD."""

    def __init__(self):
        self.answer = without("spec", "model", "cache")

    async def get(self, kind, namespace, name):
        assert (kind, name) == (CRD, NAME)
        assert kind.path(namespace, name) == (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/pipelinedeployments.stageline.dev"
        )
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_every_resource_is_looked_at_again_when_it_changes_and_only_then(caplog):
    cluster, told = OneCrd(), []
    definition = Definition(cluster, lambda: told.append(definition.dropped))
    await definition.look()
    await definition.look()
    assert told == [("spec.model.cache",)]
    assert "drops spec.model.cache: apply manifests/crd.yaml" in caplog.text
    cluster.answer = Busy("no answer")
    await definition.look()
    assert definition.dropped == ("spec.model.cache",)
    cluster.answer = crd()
    await definition.look()
    assert told == [("spec.model.cache",), ()]
