"""Which objects a selector selects."""

import pytest

from stageline_local.apiserver.errors import Refusal
from stageline_local.apiserver.kinds import BUILT_IN
from stageline_local.apiserver.selectors import by_fields, by_labels

KINDS = {(kind.group, kind.plural): kind for kind in BUILT_IN}
POD, EVENT = KINDS["", "pods"], KINDS["events.k8s.io", "events"]
LABELS = {"app": "llama", "tier": "front", "stageline.dev/name": "x", "number": "5"}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", True),
        ("app=llama", True),
        ("app==llama", True),
        ("app = llama", True),
        ("app=other", False),
        ("app!=other", True),
        ("app!=llama", False),
        ("none!=x", True),
        ("none=", False),
        ("app", True),
        ("!app", False),
        ("none", False),
        ("!none", True),
        ("stageline.dev/name=x", True),
        ("app in (llama, other)", True),
        ("app in (other)", False),
        ("none in (llama)", False),
        ("app notin (llama)", False),
        ("app notin (other, more)", True),
        ("none notin (llama)", True),
        ("app=llama,tier in (front,back),!none", True),
        ("app=llama,tier=back", False),
        ("number>4", True),
        ("number<5", False),
        ("app>4", False),
    ],
)
def test_labels(selector, selected):
    assert by_labels(selector)(LABELS) is selected, f"{selector!r} of {LABELS}"


@pytest.mark.parametrize("selector", ["a b", "a in b", "=x", "a>b", "a=b=c"])
def test_a_label_selector_that_cannot_be_read_is_refused(selector):
    with pytest.raises(Refusal) as caught:
        by_labels(selector)
    assert caught.value.code == 400


POD_OBJECT = {
    "metadata": {"name": "p", "namespace": "ns"},
    "spec": {"nodeName": "n1", "hostNetwork": True},
    "status": {"phase": "Running"},
}
EVENT_OBJECT = {
    "metadata": {"name": "e", "namespace": "ns"},
    "involvedObject": {"kind": "Pod", "name": "p"},
    "reportingComponent": "operator",
}


@pytest.mark.parametrize(
    ("kind", "obj", "selector", "selected"),
    [
        (POD, POD_OBJECT, "", True),
        (POD, POD_OBJECT, "metadata.name=p", True),
        (POD, POD_OBJECT, "metadata.name!=p", False),
        (POD, POD_OBJECT, "metadata.namespace==ns,spec.nodeName=n1", True),
        (POD, POD_OBJECT, "spec.nodeName=", False),
        (POD, POD_OBJECT, "status.phase!=Failed,status.phase!=Succeeded", True),
        (POD, POD_OBJECT, "spec.hostNetwork=true", True),
        (POD, {**POD_OBJECT, "spec": {}}, "spec.nodeName=", True),
        (EVENT, EVENT_OBJECT, "involvedObject.name=p", True),
        (EVENT, EVENT_OBJECT, "regarding.name=p,regarding.kind=Pod", True),
        (EVENT, EVENT_OBJECT, "regarding.name=q", False),
        (EVENT, EVENT_OBJECT, "reportingController=operator", True),
    ],
)
def test_fields(kind, obj, selector, selected):
    assert by_fields(selector, kind)(obj) is selected, f"{selector!r} of {obj}"


@pytest.mark.parametrize("selector", ["spec.image=x", "metadata.labels=x"])
def test_a_field_without_an_index_is_refused(selector):
    with pytest.raises(Refusal, match="field label not supported"):
        by_fields(selector, POD)
