"""Which objects are garbage."""

import pytest

from stageline_local.controllers.garbage import (
    children,
    is_garbage,
    suspects,
    waits_for_children,
    without_finalizer,
)


def owned(*uids, **metadata):
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": f"n-{uid}", "uid": uid} for uid in uids
    ]
    return {"metadata": {"name": "x", "namespace": "ns", "ownerReferences": references, **metadata}}


@pytest.mark.parametrize(
    ("uids", "alive", "garbage"),
    [
        ((), (), False),
        (("a",), ("a",), False),
        (("a",), (), True),
        (("a", "b"), ("b",), False),
        (("a", "b"), (), True),
        (("a",), ("c",), True),
    ],
)
def test_garbage_is_what_has_lost_all_its_owners(uids, alive, garbage):
    assert is_garbage(owned(*uids), lambda owner: owner.uid in alive) is garbage


def test_nobody_is_asked_for_while_one_owner_is_known():
    assert suspects(owned("a", "b"), {"b": ...}) == ()
    assert [owner.uid for owner in suspects(owned("a", "b"), {})] == ["a", "b"]


def test_children():
    mine, other = owned("a", "b"), owned("c")
    assert children("b", [mine, other]) == [mine]


@pytest.mark.parametrize(
    ("metadata", "finalizer"),
    [
        ({"finalizers": ["foregroundDeletion"]}, ""),
        ({"finalizers": ["foregroundDeletion"], "deletionTimestamp": "t"}, "foregroundDeletion"),
        ({"finalizers": ["x/y", "orphan"], "deletionTimestamp": "t"}, "orphan"),
        ({"finalizers": ["x/y"], "deletionTimestamp": "t"}, ""),
        ({"deletionTimestamp": "t"}, ""),
    ],
)
def test_what_waits_for_the_collector(metadata, finalizer):
    assert waits_for_children(owned(**metadata)) == finalizer


def test_other_finalizers_stay():
    assert without_finalizer(owned(finalizers=["x/y", "orphan"]), "orphan") == ["x/y"]
