"""Reconciling against a cluster in memory: order, preconditions, and faults made up for."""

import dataclasses

import pytest

from stageline_operator.cluster import Busy
from stageline_operator.decision import Decision, Delete, Notice, Patch
from stageline_operator.kinds import CONFIG_MAP, PIPELINE_DEPLOYMENT, POD, SERVICE, kind_of
from stageline_operator.queue import Later
from support.objects import gpu_node
from support.reconciled import KEY, World

pytestmark = pytest.mark.looptime


async def test_a_resource_that_is_gone_is_left_alone():
    world = World()
    world.cache.heard(
        "DELETED",
        {**world.resource, "metadata": {**world.resource["metadata"], "resourceVersion": "99"}},
    )
    assert await world.reconcile() is None
    assert (world.observed, world.cluster.calls) == ([], [])


async def test_nothing_is_made_for_a_resource_that_is_being_deleted():
    world = World()
    world.wishing(world.child())
    dying = {
        "metadata": {**world.resource["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    }
    world.cache.heard("MODIFIED", world.cluster.put({**world.resource, **dying}))
    assert await world.reconcile() is None
    assert world.cluster.calls == []


async def test_effects_come_in_order_and_the_answers_are_seen_at_once():
    world = World()
    old = world.put_child(kind=POD, name="old")
    delete = Delete(POD, "old", old["metadata"]["uid"])
    world.decide = lambda observed: Decision(
        apply=(world.child(), world.child(CONFIG_MAP)), delete=(delete,),
        create=(world.child(POD, "new-0"), world.child(POD, "new-1")),
        status={"replicas": 1}, notices=(Notice("Normal", "Made", "It is made."),), again=9.0,
    )  # fmt: skip
    assert await world.reconcile() == 1.0, "a second look, as nobody tells of our own writes"
    verbs = [verb for verb, _ in world.cluster.calls]
    assert verbs == ["create", "create", "delete", "create", "create", "status", "event"]
    observed = world.cache.observed(KEY)
    assert sorted(observed.of(POD)) == ["new-0", "new-1", "old"]
    assert "deletionTimestamp" in observed.of(POD)["old"]["metadata"]
    assert observed.resource["status"] == {"replicas": 1}
    assert list(observed.of(SERVICE)) == ["llama"]


async def test_what_is_as_it_should_be_costs_no_request():
    world = World()
    world.put_child()
    world.wishing(world.child())
    assert await world.reconcile() is None
    assert world.cluster.calls == []


async def test_a_child_that_was_changed_is_brought_back_by_its_uid():
    world = World()
    world.put_child(spec={"port": 1})
    world.wishing(world.child(spec={"port": 2}))
    await world.reconcile()
    assert world.cluster.calls == [("restore", "llama")]
    assert world.cache.observed(KEY).of(SERVICE)["llama"]["spec"] == {"port": 2}


async def test_a_step_that_fails_keeps_the_later_ones_from_beginning():
    world = World()
    world.decide = lambda observed: Decision(
        apply=(world.child(), world.child(CONFIG_MAP)), create=(world.child(POD, "p"),), status={}
    )
    world.cluster.fault = lambda verb, subject: Busy("away", 3.0) if verb == "create" else None
    with pytest.raises(Later, match="away") as later:
        await world.reconcile()
    assert later.value.after == 3.0
    assert world.cluster.verbs() == {"create": 2}, "neither pods nor status may be written"


async def test_a_child_made_before_the_operator_died_is_found_and_kept():
    world = World()
    world.wishing(world.child())
    world.cluster.put(world.child())  # the watch has not told yet
    with pytest.raises(Later, match="was there already"):
        await world.reconcile()
    assert await world.reconcile() is None
    assert world.cluster.verbs() == {"create": 1, "get": 1}


async def test_a_child_that_is_not_what_we_believed_is_looked_at_before_anything_else():
    world = World()
    world.put_child(spec=1)
    world.wishing(world.child(spec=2), create=(world.child(POD, "p"),))
    world.cluster.remove(SERVICE, "llama")
    with pytest.raises(Later):
        await world.reconcile()
    assert world.cluster.of(POD) == []
    await world.reconcile()
    assert world.cluster.of(SERVICE) == ["llama"], "made anew once its end was known"


async def test_a_delete_hits_only_the_object_that_was_meant():
    world = World()
    old = world.put_child(kind=POD, name="p")
    world.decide = lambda observed: Decision(delete=(Delete(POD, "p", old["metadata"]["uid"]),))
    world.cluster.remove(POD, "p")
    new = world.cluster.put(world.child(POD, "p"))
    with pytest.raises(Later):
        await world.reconcile()
    seen = world.cache.observed(KEY).of(POD)["p"]["metadata"]["uid"]
    assert (world.cluster.of(POD), seen) == (["p"], new["metadata"]["uid"])


async def test_what_is_gone_already_need_not_be_deleted_or_patched():
    world = World()
    pod = world.put_child(kind=POD, name="p")
    other = world.put_child(kind=POD, name="q")
    world.cluster.remove(POD, "p")
    world.cluster.remove(POD, "q")
    world.decide = lambda observed: Decision(
        patch=(Patch(POD, "q", {"metadata": {"labels": {"a": "b"}}}),),
        delete=(Delete(POD, "p", pod["metadata"]["uid"]),),
    )
    await world.reconcile()
    assert world.cache.observed(KEY).of(POD) == {}
    assert other


async def test_a_pod_whose_node_is_lost_is_deleted_at_once():
    world = World()
    pod = world.put_child(kind=POD, name="p")
    world.decide = lambda observed: Decision(
        delete=(Delete(POD, "p", pod["metadata"]["uid"], force=True),)
    )
    await world.reconcile()
    assert world.cluster.calls == [("kill", "p")]
    assert world.cache.observed(KEY).of(POD) == {}


@pytest.mark.parametrize("at", range(1, 9))
async def test_whatever_request_fails_the_end_is_the_same(at):
    """A fault at each request in turn; the next reconciles make up for it."""
    world = World()
    world.put_child(kind=POD, name="old")

    def decide(observed):
        wished = [world.child(), world.child(CONFIG_MAP)]
        missing = [
            obj for obj in wished if obj["metadata"]["name"] not in observed.of(kind_of(obj))
        ]
        pods = [world.child(POD, name) for name in ("a", "b") if name not in observed.of(POD)]
        old = [Delete(POD, "old", pod["metadata"]["uid"]) for name, pod in observed.of(POD).items()
               if name == "old" and "deletionTimestamp" not in pod["metadata"]]  # fmt: skip
        status = None if observed.resource.get("status") else {"done": True}
        return Decision(apply=tuple(missing), delete=tuple(old), create=tuple(pods), status=status)

    world.decide = decide
    calls = iter(range(1, 1000))
    world.cluster.fault = lambda verb, subject: Busy("away") if next(calls) == at else None
    for _ in range(3):
        try:
            await world.reconcile()
        except Later:
            continue
    assert world.cluster.of(POD) == ["a", "b", "old"]
    assert "deletionTimestamp" in world.cluster.objects[POD, "default", "old"]["metadata"]
    assert (world.cluster.of(SERVICE), world.cluster.of(CONFIG_MAP)) == (["llama"], ["llama"])
    assert world.cluster.objects[PIPELINE_DEPLOYMENT, "default", "llama"]["status"] == {
        "done": True
    }


async def test_what_asks_for_nodes_is_decided_once_more_with_them():
    def decide(observed):
        if observed.nodes is None:
            return Decision(wants_nodes=True)
        return Decision(
            status={"nodes": [node["metadata"]["name"] for node in observed.nodes.items]}
        )

    world = World(decide)
    world.cluster.put(gpu_node("gpu-1"))
    await world.reconcile()
    assert [verb for verb, _ in world.cluster.calls] == ["list", "status"]
    told = world.cluster.objects[PIPELINE_DEPLOYMENT, "default", "llama"]["status"]
    assert told == {"nodes": ["gpu-1"]}


def test_a_decision_has_no_field_that_reconciling_does_not_know():
    known = {
        "first", "apply", "patch", "delete", "create", "status", "status_waits", "notices", "deeds",
        "wants_nodes", "reading", "again",
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(Decision)} == known
