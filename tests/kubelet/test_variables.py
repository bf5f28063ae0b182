"""Expansion and environment, by Kubernetes' own examples."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_local.kubelet.refusals import ConfigError
from stageline_local.kubelet.sources import Sources
from stageline_local.kubelet.variables import environment, expand, field_value

POD = {
    "metadata": {
        "name": "llama-0",
        "namespace": "ml",
        "uid": "u-1",
        "labels": {"stageline.dev/stage": "3"},
        "annotations": {"note": "hi"},
    },
    "spec": {"nodeName": "local"},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y2z"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$A and $", "$A and $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("$$", "$"),
        ('{"listen":"$(A):7070","price":"$$5"}', '{"listen":"1:7070","price":"$5"}'),
    ],
)
def test_expansion(text, expected):
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text())
def test_escaped_text_comes_through_as_it_was(text):
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text


def sources(config=None, secret=None):
    encoded = {k: base64.b64encode(v.encode()).decode() for k, v in (secret or {}).items()}
    return Sources({("ml", "cm"): {"data": config or {}}}, {("ml", "s"): {"data": encoded}})


def read(container, **data):
    return environment(
        container, "ml", lambda path: field_value(POD, "127.1.2.3", "127.0.0.1", path),
        sources(**data),
    )  # fmt: skip


def test_later_variables_see_earlier_ones_only():
    env = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "LISTEN", "value": "$(POD_IP):7070 $(LATER)"},
        {"name": "LATER", "value": "x"},
        {"name": "EMPTY"},
    ]
    expected = {"POD_IP": "127.1.2.3", "LISTEN": "127.1.2.3:7070 $(LATER)"}
    assert read({"env": env}) == {**expected, "LATER": "x", "EMPTY": ""}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "llama-0"),
        ("metadata.namespace", "ml"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['stageline.dev/stage']", "3"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "hi"),
        ("spec.nodeName", "local"),
        ("status.podIP", "127.1.2.3"),
        ("status.hostIP", "127.0.0.1"),
    ],
)
def test_fields(path, value):
    env = [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}]
    assert read({"env": env}) == {"X": value}


def test_whole_maps_come_first_and_are_overruled():
    container = {
        "envFrom": [
            {"configMapRef": {"name": "cm"}, "prefix": "C_"},
            {"secretRef": {"name": "s"}},
            {"configMapRef": {"name": "absent", "optional": True}},
        ],
        "env": [{"name": "TOKEN", "value": "own"}],
    }
    got = read(container, config={"A": "1", "not a name": "x"}, secret={"TOKEN": "t", "KEY": "k"})
    assert got == {"C_A": "1", "TOKEN": "own", "KEY": "k"}


def test_single_keys():
    env = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "b"}}},
        {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "c", "optional": True}}},
    ]
    assert read({"env": env}, config={"a": "1"}, secret={"b": "2"}) == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("origin", "sentence"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "a"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "no", "key": "a"}}, 'secret "no" not found'),
        ({"secretKeyRef": {"name": "s", "key": "a"}}, "couldn't find key a in Secret ml/s"),
        ({"fieldRef": {"fieldPath": "spec.x"}}, "a pod that is a process has no field spec.x"),
        (
            {"resourceFieldRef": {"resource": "limits.cpu"}},
            "a pod that is a process knows no valueFrom of resourceFieldRef",
        ),
    ],
)
def test_what_is_absent_is_said(origin, sentence):
    with pytest.raises(ConfigError) as refused:
        read({"env": [{"name": "A", "valueFrom": origin}]})
    assert str(refused.value) == sentence
