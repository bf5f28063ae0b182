"""Children: owned, labelled, valid and restricted, whatever the spec."""

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stageline_api.plan import PlanError
from stageline_api.pods import PodTemplate
from stageline_operator import render
from stageline_operator.kinds import CHILDREN, SECRET, kind_of
from stageline_operator.labels import OWNER
from stageline_operator.render.patching import Patched, patched
from stageline_operator.settings import RenderSettings
from support.podsecurity import restricted
from support.rendered import rendered
from support.specs import SPECS

HOST = RenderSettings(allow_host_path=True)


def pods(children):
    for child in children:
        if child["kind"] == "Pod":
            yield child
        if child["kind"] == "Deployment":
            yield child["spec"]["template"]


def check(children):
    """What must be so of all that is rendered."""
    for child in children:
        kubernetes_validate.validate(child, "1.37", strict=True)
        metadata = child["metadata"]
        assert kind_of(child) in (*CHILDREN, SECRET)
        assert metadata["labels"][OWNER] == metadata["ownerReferences"][0]["name"]
        assert all(len(value) <= 63 for value in metadata["labels"].values())
    for pod in pods(children):
        assert restricted(pod) == []
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("uri", ["pvc://models/llama", "hf://a/b@main"])
def test_every_child_is_valid_and_restricted(spec, uri):
    check(rendered(SPECS[spec], uri=uri).everything())


def test_a_folder_of_the_node_is_all_that_the_restricted_level_has_against_a_pod():
    made = rendered(uri="file:///models/llama", settings=HOST)
    assert restricted(made.stage()) == ["volume model is a hostPath"]
    kubernetes_validate.validate(made.stage(), "1.37", strict=True)


quantities = st.sampled_from(["1", "500m", "2Gi", "1.5G"])
labels = st.dictionaries(
    st.from_regex(r"[a-z]([a-z0-9.-]{0,10}[a-z0-9])?(/[A-Za-z]{1,5})?", fullmatch=True),
    st.from_regex(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,8}[A-Za-z0-9])?)?", fullmatch=True),
    max_size=3,
)
tolerations = st.lists(
    st.fixed_dictionaries(
        {"key": st.sampled_from(["gpu", "node.kubernetes.io/not-ready", "example.com/x"]),
         "operator": st.just("Exists")},
        optional={"effect": st.sampled_from(["NoSchedule", "NoExecute"])},
    ),
    max_size=3,
)  # fmt: skip
resources = st.fixed_dictionaries(
    {},
    optional={
        "limits": st.dictionaries(st.sampled_from(["cpu", "memory"]), quantities),
        "deviceMemory": st.just("80Gi"),
    },
)
templates = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries({"labels": labels, "annotations": labels}),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "priorityClassName": st.just("high"),
                "nodeSelector": labels,
                "terminationGracePeriodSeconds": st.integers(0, 600),
                "tolerations": tolerations,
            },
        ),
    },
)
spec = st.fixed_dictionaries(
    {"pipeline": st.fixed_dictionaries({"stages": st.integers(2, 6)})},
    optional={
        "nodeSelector": labels,
        "tolerations": tolerations,
        "resources": resources,
        "podTemplate": templates,
        "stageOverrides": st.lists(
            st.fixed_dictionaries(
                {"stages": st.just([1])},
                optional={
                    "nodeSelector": labels,
                    "tolerations": tolerations,
                    "podTemplate": templates,
                },
            ),
            max_size=1,
        ),
        "router": st.fixed_dictionaries(
            {"replicas": st.integers(1, 3), "port": st.integers(1, 65535)},
            optional={"podTemplate": templates},
        ),
    },
)
dns = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(spec, dns, dns, st.sampled_from(["hf://a/b", "pvc://a/b"]))
def test_whatever_the_spec_its_children_are_valid_and_restricted(spec, name, namespace, uri):
    try:
        made = rendered(spec, name=name, namespace=namespace, uri=uri)
    except PlanError:  # too little memory for its stages
        assume(False)
    check(made.everything())


def test_children_are_the_resources_own():
    made = rendered("{router: {replicas: 2}}")
    for child in made.everything():
        assert child["metadata"]["namespace"] == "models"
        assert child["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "stageline.dev/v1alpha1",
                "kind": "PipelineDeployment",
                "name": "llama",
                "uid": "0123-4567",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(["containers", "volumes", "hostname", "securityContext", "x", "$patch"]),
        any_json | st.lists(st.fixed_dictionaries({"name": st.just("worker"), "env": any_json})),
        max_size=3,
    )
)
def test_any_patch_makes_a_pod_or_a_sentence(patch):
    template = PodTemplate.model_validate({"spec": patch})
    try:
        made = patched(BASE, template, Patched("llama", "worker", "spec.podTemplate"))
    except render.RenderError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.reason == "PodTemplateRefused"
        assert "\n" not in str(refusal)
        return
    kubernetes_validate.validate(made, "1.37", strict=True)
    assert made["spec"]["hostname"] == BASE["spec"]["hostname"]


BASE = rendered().stage()


def test_rendering_changes_nothing_that_it_is_given():
    made = rendered(SPECS["everything"])
    before = yaml.safe_dump([made.resource, made.record.model_dump(mode="json")])
    made.everything()
    assert yaml.safe_dump([made.resource, made.record.model_dump(mode="json")]) == before
