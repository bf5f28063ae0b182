"""The patches that say what is to change rather than what is to be."""

import pytest

from stageline_local.apiserver import schema
from stageline_local.apiserver.errors import Refusal
from stageline_local.apiserver.kinds import BUILT_IN
from stageline_local.apiserver.patches import json_patch, merge_patch, strategic_merge_patch

POD = schema.built_in(next(kind for kind in BUILT_IN if kind.kind == "Pod"))


def containers(*items):
    return {"spec": {"containers": [*items]}}


A, B = {"name": "a", "image": "1"}, {"name": "b", "image": "1"}


@pytest.mark.parametrize(
    ("live", "patch", "patched"),
    [
        pytest.param(
            containers(A, B),
            containers({"name": "b", "image": "2"}),
            containers(A, {"name": "b", "image": "2"}),
            id="an item is found by its key",
        ),
        pytest.param(
            containers(A, B),
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
                    "containers": [{"name": "b", "image": "2"}],
                }
            },
            containers(A, {"name": "b", "image": "2"}),
            id="the client may say the order",
        ),
        pytest.param(
            containers(A, B),
            containers({"name": "a", "$patch": "delete"}),
            containers(B),
            id="an item is deleted",
        ),
        pytest.param(
            containers(A, B),
            containers({"$patch": "replace"}, A),
            containers(A),
            id="a list is replaced",
        ),
        pytest.param(
            {"spec": {"nodeSelector": {"a": "1"}}},
            {"spec": {"nodeSelector": {"$patch": "replace", "b": "2"}}},
            {"spec": {"nodeSelector": {"b": "2"}}},
            id="a map is replaced",
        ),
        pytest.param(
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            {"metadata": {"labels": {"a": None}}},
            {"metadata": {"labels": {"b": "2"}}},
            id="null deletes",
        ),
        pytest.param(
            {"metadata": {"finalizers": ["a"]}},
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["a", "b"]}},
            id="a set is joined",
        ),
        pytest.param(
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}},
            {"metadata": {"finalizers": ["b"]}},
            id="a value is taken out of a set",
        ),
        pytest.param(
            containers({**A, "command": ["x", "y"]}),
            containers({"name": "a", "command": ["z"]}),
            containers({**A, "command": ["z"]}),
            id="a plain list is one value",
        ),
        pytest.param(
            {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
            {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {}}]}},
            {"spec": {"volumes": [{"name": "v", "secret": {}}]}},
            id="only these keys are kept",
        ),
    ],
)
def test_strategic_merge(live, patch, patched):
    assert strategic_merge_patch(POD, live, patch) == patched


def test_an_item_without_its_key_is_refused():
    with pytest.raises(Refusal, match="does not contain declared merge key: name"):
        strategic_merge_patch(POD, containers(A), containers({"image": "2"}))


def test_merge_patch_replaces_lists_and_deletes_by_null():
    live = {"spec": {"a": 1, "b": [1, 2], "c": {"d": 1}}}
    patch = {"spec": {"a": None, "b": [3], "c": {"e": 2}}}
    assert merge_patch(live, patch) == {"spec": {"b": [3], "c": {"d": 1, "e": 2}}}


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "test", "path": "/a", "value": 2}],
        [{"op": "remove", "path": "/b"}],
        [{"op": "nonsense", "path": "/a"}],
    ],
)
def test_a_json_patch_that_cannot_be_done_is_invalid(patch):
    with pytest.raises(Refusal) as caught:
        json_patch({"a": 1}, patch)
    assert caught.value.code == 422


@pytest.mark.parametrize("patch", [{"a": 1}, "text", [1], None])
def test_a_json_patch_is_a_list_of_operations(patch):
    with pytest.raises(Refusal):
        json_patch({"a": 1}, patch)
