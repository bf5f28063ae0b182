"""What the server refuses of objects that are of the right types."""

import base64

import pytest

from stageline_local.apiserver import protobuf
from stageline_local.apiserver.errors import Refusal
from support.apiserver import CORE, DEPLOYMENTS, ask, config_map, deployment, pod

LONG = "x" * 254


def container(**fields):
    return {"name": "c", "image": "i", **fields}


def pod_of(*containers, **fields):
    return {**pod(), "spec": {"containers": [*containers], **fields}}


def service(**spec):
    return {"metadata": {"name": "s"}, "spec": spec}


SERVICES, PODS, MAPS = f"{CORE}/services", f"{CORE}/pods", f"{CORE}/configmaps"


@pytest.mark.parametrize(
    ("path", "obj", "field"),
    [
        (MAPS, config_map("Upper"), "metadata.name"),
        (MAPS, config_map(LONG), "metadata.name"),
        (MAPS, config_map("under_score"), "metadata.name"),
        (SERVICES, {**service(ports=[{"port": 1}]), "metadata": {"name": "9s"}}, "metadata.name"),
        (SERVICES, {**service(ports=[{"port": 1}]), "metadata": {"name": "a.b"}}, "metadata.name"),
        ("/api/v1/namespaces", {"metadata": {"name": "a.b"}}, "metadata.name"),
        (MAPS, {"metadata": {"name": "c", "labels": {"a": "x" * 64}}}, "metadata.labels"),
        (MAPS, {"metadata": {"name": "c", "labels": {"-a": "x"}}}, "metadata.labels"),
        (MAPS, {"metadata": {"name": "c", "labels": {"UP/a": "x"}}}, "metadata.labels"),
        (MAPS, {"metadata": {"name": "c", "annotations": {"a b": ""}}}, "metadata.annotations"),
        (
            MAPS,
            {"metadata": {"name": "c", "annotations": {"a": "x" * 2**18}}},
            "metadata.annotations",
        ),
        (MAPS, {"metadata": {"name": "c", "ownerReferences": [{}]}}, "metadata.ownerReferences"),
        (PODS, pod_of(), "spec.containers"),
        (PODS, pod_of(container(image="")), "spec.containers[0].image"),
        (PODS, pod_of(container(name="")), "spec.containers[0].name"),
        (PODS, pod_of(container(name="A")), "spec.containers[0].name"),
        (PODS, pod_of(container(), container()), "spec.containers[1].name"),
        (
            PODS,
            pod_of(container(ports=[{"containerPort": 70000}])),
            "spec.containers[0].ports[0].containerPort",
        ),
        (
            PODS,
            pod_of(container(volumeMounts=[{"name": "v", "mountPath": "/v"}])),
            "spec.containers[0].volumeMounts[0].name",
        ),
        (PODS, pod_of(container(), restartPolicy="Perhaps"), "spec.restartPolicy"),
        (PODS, pod_of(container(), hostname="a.b"), "spec.hostname"),
        (PODS, pod_of(container(), volumes=[{"name": "v"}, {"name": "v"}]), "spec.volumes[1].name"),
        (SERVICES, service(), "spec.ports"),
        (SERVICES, service(ports=[{"port": 0}]), "spec.ports[0].port"),
        (SERVICES, service(ports=[{"port": 1}, {"port": 2}]), "spec.ports[0].name"),
        (
            DEPLOYMENTS,
            {**deployment(), "spec": {**deployment()["spec"], "replicas": -1}},
            "spec.replicas",
        ),
        (
            DEPLOYMENTS,
            {**deployment(), "spec": {**deployment()["spec"], "selector": {}}},
            "spec.selector",
        ),
        (DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": {}}, "spec.selector"),
    ],
)
def test_an_object_that_breaks_a_rule_is_refused(server, path, obj, field):
    answer = ask(server.url, "POST", path, obj)
    assert (answer.code, answer.reason) == (422, "Invalid"), answer.body
    assert field in {cause["field"] for cause in answer.body["details"]["causes"]}, answer.message


def text(number, value):
    return bytes([number << 3 | 2, len(value)]) + value.encode()


def message(number, *parts):
    content = b"".join(parts)
    return bytes([number << 3 | 2, len(content)]) + content


def envelope(kind, *parts):
    head = message(1, text(1, "v1"), text(2, kind))
    return b"k8s\x00" + head + message(2, *parts)


def test_protobuf_is_read():
    entry = message(2, text(1, "TOKEN"), text(2, "xyz"))
    label = message(11, text(1, "a"), text(2, "b"))
    meta = message(1, text(1, "hf"), text(3, ""), label, bytes([7 << 3, 0]))
    assert protobuf.decoded(envelope("Secret", meta, entry, bytes([5 << 3, 1]))) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "immutable": True,
        "metadata": {"name": "hf", "labels": {"a": "b"}},
        "data": {"TOKEN": base64.b64encode(b"xyz").decode()},
    }


def test_protobuf_of_a_kind_that_we_have_no_numbers_for_is_left_alone():
    assert protobuf.decoded(envelope("Deployment")) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"k8s\x00",
        b"{}",
        b"k8s\x00\x0a\xff",
        b"k8s\x00\x0f\x0f",
        b"k8s\x00" + b"\xff" * 20,
        envelope("Secret", b"\x0a\x7f"),
        envelope("Secret", b"\x08\x01"),
    ],
)
def test_broken_protobuf_is_refused(body):
    with pytest.raises(Refusal) as caught:
        protobuf.decoded(body)
    assert caught.value.code == 400
