"""The cache: what is newest wins, whatever the order in which it is heard."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_operator.cache import Cache, Key, Listing
from stageline_operator.kinds import CONFIG_MAP, PIPELINE_DEPLOYMENT, POD, SERVICE
from stageline_operator.labels import COMPONENT, OWNER, ROUTER_COMPONENT

KEY = Key("default", "llama")


def resource(version=1, uid="u", **metadata):
    return {
        "apiVersion": PIPELINE_DEPLOYMENT.api_version,
        "kind": PIPELINE_DEPLOYMENT.kind,
        "metadata": {"name": "llama", "namespace": "default", "uid": uid,
                     "resourceVersion": str(version), **metadata},
        "spec": {},
    }  # fmt: skip


def child(version=1, name="llama", kind=SERVICE, owner="u", uid="c", labels=None, **extra):
    controller = {"apiVersion": PIPELINE_DEPLOYMENT.api_version, "kind": PIPELINE_DEPLOYMENT.kind,
                  "name": "llama", "uid": owner, "controller": True}  # fmt: skip
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": "default", "uid": uid,
                     "resourceVersion": str(version),
                     "labels": {OWNER: "llama"} if labels is None else labels,
                     "ownerReferences": [controller] if owner else []},
        **extra,
    }  # fmt: skip


def cache_of(*objects):
    cache = Cache()
    for obj in objects:
        cache.heard("ADDED", obj)
    return cache


def seen(cache, name="llama", kind=SERVICE):
    return cache.observed(KEY).of(kind).get(name)


def test_nothing_is_observed_of_a_resource_that_is_not_there():
    assert cache_of(child()).observed(KEY) is None


def test_children_that_come_before_their_resource_are_not_lost():
    assert seen(cache_of(child(5), resource(9)))


def test_a_late_event_does_not_undo_a_newer_answer():
    cache = cache_of(resource(1), child(2, spec="old"))
    cache.answered(KEY, child(7, spec="new"), 0.0)
    cache.heard("MODIFIED", child(5, spec="between"))
    assert seen(cache)["spec"] == "new"


def test_what_an_answer_has_told_already_is_no_news():
    cache = cache_of(resource(1))
    cache.answered(KEY, child(5), 0.0)
    assert cache.heard("ADDED", child(5)) is None
    assert cache.heard("MODIFIED", child(6)) == KEY
    assert cache.heard("DELETED", child(7)) == KEY


def test_a_late_answer_does_not_bring_back_what_was_deleted():
    cache = cache_of(resource(1), child(2))
    cache.heard("DELETED", child(9))
    cache.answered(KEY, child(7), 0.0)
    assert seen(cache) is None


def test_the_answer_to_a_delete_does_not_bring_back_what_its_event_has_ended():
    """Without grace both have one version, on a real server."""
    cache = cache_of(resource(1), child(2))
    ended = child(9)
    ended["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cache.heard("DELETED", ended)
    cache.answered(KEY, ended, 0.0)
    assert seen(cache) is None


def test_the_end_of_an_earlier_object_of_the_same_name_does_not_remove_the_new_one():
    cache = cache_of(resource(1), child(2, uid="first"))
    cache.answered(KEY, child(8, uid="second"), 0.0)
    cache.heard("DELETED", child(6, uid="first"))
    assert seen(cache)["metadata"]["uid"] == "second"


def test_what_lost_its_label_counts_as_gone_until_it_is_read_again():
    cache = cache_of(resource(1), child(2))
    cache.heard("DELETED", child(6))  # the API server's word for "it left your selector"
    assert seen(cache) is None
    cache.answered(KEY, child(6, labels={}), 0.0)
    assert seen(cache)["metadata"]["labels"] == {}


def test_a_child_whose_label_was_changed_stays_where_its_controller_says():
    cache = cache_of(resource(1), child(2))
    assert cache.heard("MODIFIED", child(3, labels={OWNER: "other"})) == KEY
    assert seen(cache)["metadata"]["labels"] == {OWNER: "other"}


@pytest.mark.parametrize("owner", ["another", None])
def test_what_has_our_label_and_another_owner_is_no_child(owner):
    observed = cache_of(resource(1), child(2, owner=owner)).observed(KEY)
    assert observed.of(SERVICE) == {}


def test_the_routers_pods_are_told_apart_from_children():
    pod = child(2, "llama-router-x", POD, labels={OWNER: "llama", COMPONENT: ROUTER_COMPONENT})
    replica_set = {"kind": "ReplicaSet", "name": "llama-router-1", "uid": "r", "controller": True}
    pod["metadata"]["ownerReferences"] = [replica_set]
    observed = cache_of(resource(1), pod).observed(KEY)
    assert list(observed.router_pods) == ["llama-router-x"]
    assert not observed.of(POD)
    assert not observed.taken


def test_a_list_removes_what_is_not_there_any_more_but_nothing_made_since():
    cache = cache_of(resource(1), child(2, "old"), child(2, "kept"), child(20, "new"))
    news = cache.listed(SERVICE, None, Listing([child(2, "kept")], 10), 0.0)
    assert news == {KEY}
    assert sorted(cache.observed(KEY).of(SERVICE)) == ["kept", "new"]


def test_a_list_of_one_namespace_says_nothing_of_another():
    cache = cache_of(resource(1), child(2))
    assert cache.listed(SERVICE, "elsewhere", Listing([], 10), 0.0) == set()
    assert seen(cache)


def test_nothing_is_kept_of_what_is_gone():
    cache = cache_of(resource(1), child(2))
    cache.heard("DELETED", child(3))
    cache.heard("DELETED", resource(4))
    assert cache.existing() == []
    assert not cache._entries


def test_a_watch_owes_what_answers_and_lists_have_shown_and_pays_with_any_newer_event():
    cache = cache_of(resource(1), child(2))
    assert cache.oldest_debt(100.0) is None
    cache.answered(KEY, child(5), 10.0)
    cache.answered(KEY, child(6), 50.0)
    assert cache.oldest_debt(100.0) == (SERVICE, 90.0), "the first news that was not told counts"
    cache.heard("MODIFIED", child(3, "llama", CONFIG_MAP))
    cache.heard("MODIFIED", child(4))
    assert cache.oldest_debt(100.0) == (SERVICE, 90.0), "an older event pays nothing"
    cache.heard("MODIFIED", child(5))
    assert cache.oldest_debt(100.0) is None


def test_an_answer_that_says_nothing_new_makes_no_debt():
    cache = cache_of(resource(1), child(2))
    cache.answered(KEY, child(2), 10.0)
    assert cache.oldest_debt(100.0) is None


def test_a_debt_stands_while_its_object_does_and_is_remitted_when_that_is_gone():
    cache = cache_of(resource(1))
    cache.answered(KEY, child(5), 10.0)
    cache.listed(SERVICE, None, Listing([child(5)], 9), 60.0)
    assert cache.oldest_debt(100.0) == (SERVICE, 90.0), "that we know it is not the watch's doing"
    cache.listed(SERVICE, "elsewhere", Listing([], 9), 60.0)
    assert cache.oldest_debt(100.0), "another namespace's list says nothing of it"
    cache.listed(SERVICE, None, Listing([], 9), 60.0)
    assert cache.oldest_debt(100.0) is None


def test_managed_fields_are_not_kept():
    managed = resource(1, managedFields=[{"manager": "kubectl"}])
    assert "managedFields" not in cache_of(managed).observed(KEY).resource["metadata"]
    assert "managedFields" in managed["metadata"], "the caller's object is left alone"


def test_of_managed_fields_is_kept_whether_a_child_was_posted_by_us():
    def kept(**claim):
        entry = {"operation": "Update", "fieldsV1": {"f:spec": {}}, **claim}
        obj = child()
        obj["metadata"]["managedFields"] = [entry]
        return seen(cache_of(resource(), obj))["metadata"].get("managedFields")

    assert kept(manager="stageline") == [{"manager": "stageline", "operation": "Update"}]
    assert kept(manager="stageline", operation="Apply") is None
    assert kept(manager="stageline", subresource="status") is None
    assert kept(manager="kubectl") is None


def test_of_a_pods_spec_only_what_is_asked_for_is_kept():
    spec = {"nodeName": "n", "containers": [{"name": "worker"}]}
    pod = child(kind=POD, name="a", spec=spec, status={"phase": "Running"})
    kept = seen(cache_of(resource(), pod, child(spec=spec)), "a", POD)
    assert (kept["spec"], kept["status"]) == ({"nodeName": "n"}, {"phase": "Running"})
    assert pod["spec"] == spec, "the caller's object is left alone"
    assert seen(cache_of(resource(), child(spec=spec)))["spec"] == spec, "others are compared whole"


def test_children_of_many_resources_are_as_they_were_and_as_they_are():
    """Those that were looked at last are held as objects, the others as JSON."""
    cache, number = Cache(), 100
    for one in range(number):
        for obj in (resource(1), child(2, spec={"n": one}), child(3, "gone")):
            obj["metadata"]["namespace"] = f"n{one}"
            cache.heard("ADDED", obj)

    def specs():
        found = (cache.observed(Key(f"n{one}", "llama")).of(SERVICE) for one in range(number))
        return [{name: obj.get("spec") for name, obj in children.items()} for children in found]

    assert specs() == specs() == [{"llama": {"n": one}, "gone": None} for one in range(number)]
    for one in range(number):  # the first are packed by now, the last are open
        for event, obj in (("MODIFIED", child(4, spec={"n": -one})), ("DELETED", child(5, "gone"))):
            obj["metadata"]["namespace"] = f"n{one}"
            cache.heard(event, obj)
    assert specs() == [{"llama": {"n": -one}} for one in range(number)]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=8), st.randoms(), st.booleans())
def test_any_order_of_events_and_answers_ends_in_the_newest(steps, shuffle, looking):
    """A child's true life (made, changed, deleted, made anew ...), heard in any order."""
    history, uid, alive = [], 0, False
    for number, (exists, by_answer) in enumerate(steps):
        if not (exists or alive):
            continue
        uid += exists and not alive
        alive = exists
        event = ("MODIFIED" if exists else "DELETED", by_answer and exists)
        history.append((event, child(2 + number, uid=str(uid), spec=number)))
    truth = history[-1][1] if history and alive else None
    heard = copy.deepcopy(history)
    shuffle.shuffle(heard)
    cache = cache_of(resource(1))
    for (event, by_answer), obj in heard:
        assert not looking or cache.observed(KEY), "it is held open"
        if by_answer:
            cache.answered(KEY, obj, 0.0)
        else:
            cache.heard(event, obj)
    assert (seen(cache) or {}).get("spec") == (truth or {}).get("spec")
