"""Reconciling against a cluster in memory: order, preconditions, memory, and what is told."""

import asyncio
import dataclasses
import logging

import pytest

from stageline_operator.cache import Cache, Key
from stageline_operator.cluster import Busy, Refused
from stageline_operator.decision import Decision, Delete, Notice, Patch
from stageline_operator.difference import is_as_wished, stamped
from stageline_operator.kinds import CONFIG_MAP, PIPELINE_DEPLOYMENT, POD, SERVICE, kind_of
from stageline_operator.labels import OWNER
from stageline_operator.memory import ASK_AGAIN_SECONDS, LONGEST_PATIENCE_SECONDS
from stageline_operator.quarrels import OFTEN, PAUSE_SECONDS
from stageline_operator.queue import Later
from stageline_operator.reconcile import Reconciler
from stageline_operator.settings import RenderSettings
from support.memory_cluster import MemoryCluster

pytestmark = pytest.mark.looptime
KEY = Key("default", "llama")


class World:
    """A cluster with one resource, the operator's cache, and a decision that a test gives."""

    def __init__(self, decide=lambda observed: Decision()):
        self.cluster, self.cache, self.decide, self.observed = MemoryCluster(), Cache(), decide, []
        self.reconciler = Reconciler(self.cluster, self.cache, self._decide, RenderSettings())
        self.resource = self.cluster.put(
            {"apiVersion": PIPELINE_DEPLOYMENT.api_version, "kind": PIPELINE_DEPLOYMENT.kind,
             "metadata": {"name": "llama", "generation": 1}, "spec": {}}
        )  # fmt: skip
        self.cache.heard("ADDED", self.resource)

    def _decide(self, observed, settings, now):
        assert isinstance(settings, RenderSettings)
        assert now.tzinfo is not None
        self.observed.append(observed)
        return self.decide(observed)

    async def reconcile(self):
        return await self.reconciler.reconcile(KEY)

    def child(self, kind=SERVICE, name="llama", **extra):
        uid = self.resource["metadata"]["uid"]
        controller = {"apiVersion": PIPELINE_DEPLOYMENT.api_version, "name": "llama", "uid": uid,
                      "kind": PIPELINE_DEPLOYMENT.kind, "controller": True}  # fmt: skip
        metadata = {"name": name, "namespace": "default", "labels": {OWNER: "llama"},
                    "ownerReferences": [controller]}  # fmt: skip
        return stamped(
            {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **extra}
        )

    def put_child(self, **how):
        """There already, and seen."""
        obj = self.cluster.put(self.child(**how))
        self.cache.heard("ADDED", obj)
        return obj

    def wishing(self, *wished, **more):
        """A decision as the real one is made: apply what is not as wished and can be."""

        def decide(observed):
            possible = [
                obj for obj in wished if _place(obj) not in {**observed.taken, **observed.refused}
            ]
            unlike = [
                obj
                for obj in possible
                if not is_as_wished(observed.of(kind_of(obj)).get(obj["metadata"]["name"]), obj)
            ]
            return Decision(apply=tuple(unlike), **more)

        self.decide = decide


def _place(obj):
    return kind_of(obj), obj["metadata"]["name"]


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
    assert verbs == ["make", "make", "delete", "create", "create", "status", "event"]
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
    world.cluster.fault = lambda verb, subject: Busy("away", 3.0) if verb == "make" else None
    with pytest.raises(Later, match="away") as later:
        await world.reconcile()
    assert later.value.after == 3.0
    assert world.cluster.verbs() == {"make": 2}, "neither pods nor status may be written"


async def test_a_child_made_before_the_operator_died_is_found_and_kept():
    world = World()
    world.wishing(world.child())
    world.cluster.put(world.child())  # the watch has not told yet
    with pytest.raises(Later, match="was there already"):
        await world.reconcile()
    assert await world.reconcile() is None
    assert world.cluster.verbs() == {"make": 1, "get": 1}


async def test_an_object_of_somebody_else_is_reported_and_never_touched():
    world = World()
    world.wishing(world.child(), world.child(CONFIG_MAP))
    theirs = world.child()
    theirs["metadata"]["ownerReferences"] = []
    before = world.cluster.put(theirs)
    assert await world.reconcile() == pytest.approx(ASK_AGAIN_SECONDS)
    assert world.observed[-1].taken == {(SERVICE, "llama"): "nobody we know"}
    assert world.cluster.of(CONFIG_MAP) == ["llama"], "the others are made all the same"
    for _ in range(10):
        await world.reconcile()
    assert world.cluster.verbs() == {"make": 2, "get": 1}, "a taken name is not asked for again"
    assert world.cluster.objects[SERVICE, "default", "llama"] == before


async def test_nothing_is_created_before_it_is_decided_anew_what_a_refusal_means():
    world = World()
    world.decide = lambda observed: (
        Decision()
        if observed.refused
        else Decision(apply=(world.child(CONFIG_MAP),), create=(world.child(POD, "p"),))
    )
    world.cluster.fault = lambda verb, subject: Refused("no") if verb == "make" else None
    await world.reconcile()
    assert world.cluster.of(POD) == [], "the record of intent could not be written"


async def test_a_name_that_became_free_is_taken_after_a_while():
    world = World()
    world.wishing(world.child())
    world.cluster.put({**world.child(), "metadata": {"name": "llama", "namespace": "default"}})
    wait = await world.reconcile()
    world.cluster.remove(SERVICE, "llama")
    await asyncio.sleep(wait)
    assert await world.reconcile() == 1.0, "a second look after a write"
    assert await world.reconcile() is None
    assert _is_ours(world, world.cluster.objects[SERVICE, "default", "llama"])


async def test_a_name_whose_owner_is_seen_to_end_is_taken_at_once():
    world = World()
    world.wishing(world.child())
    world.cluster.put({**world.child(), "metadata": {"name": "llama", "namespace": "default"}})
    await world.reconcile()
    world.cluster.remove(SERVICE, "llama")
    world.reconciler.was_freed(KEY, (SERVICE, "llama"))
    await world.reconcile()
    assert _is_ours(world, world.cluster.objects[SERVICE, "default", "llama"])


def _is_ours(world, obj):
    return obj["metadata"]["ownerReferences"][0]["uid"] == world.resource["metadata"]["uid"]


async def test_a_refusal_is_told_in_the_same_reconcile_and_not_repeated():
    world = World()
    world.decide = lambda observed: Decision(
        create=() if (POD, "p") in observed.refused else (world.child(POD, "p"),),
        status={"message": observed.refused.get((POD, "p"), "")},
    )
    sentence = 'pods "p" is forbidden: exceeded quota'
    world.cluster.fault = lambda verb, subject: Refused(sentence) if verb == "create" else None
    assert await world.reconcile() == pytest.approx(ASK_AGAIN_SECONDS)
    assert world.cache.resource(KEY)["status"] == {"message": sentence}
    await world.reconcile()
    assert world.cluster.verbs()["create"] == 1
    await asyncio.sleep(ASK_AGAIN_SECONDS)
    world.cluster.fault = lambda verb, subject: None
    await world.reconcile()
    assert world.cluster.of(POD) == ["p"]


async def test_another_spec_is_tried_at_once_whatever_was_refused():
    world = World()
    world.wishing(world.child(CONFIG_MAP))
    world.cluster.fault = lambda verb, subject: Refused("no") if verb == "make" else None
    await world.reconcile()
    world.cluster.fault = lambda verb, subject: None
    await world.reconcile()
    assert world.cluster.of(CONFIG_MAP) == []
    changed = {**world.resource, "metadata": {**world.resource["metadata"], "generation": 2}}
    world.cache.heard("MODIFIED", world.cluster.put(changed))
    await world.reconcile()
    assert world.cluster.of(CONFIG_MAP) == ["llama"]


async def test_a_decision_that_wants_what_is_refused_again_and_again_ends():
    world = World()
    names = iter(range(1000))
    world.decide = lambda observed: Decision(create=(world.child(POD, f"p{next(names)}"),))
    world.cluster.fault = lambda verb, subject: Refused("no") if verb == "create" else None
    with pytest.raises(Later, match="one child after the other"):
        await world.reconcile()
    assert world.cluster.verbs() == {"create": 3}


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


async def test_the_status_of_a_later_resource_of_the_same_name_is_not_written():
    world = World(lambda observed: Decision(status={"replicas": 1}))
    world.cluster.remove(PIPELINE_DEPLOYMENT, "llama")
    world.cluster.put({**world.resource, "metadata": {"name": "llama", "generation": 1}})
    with pytest.raises(Later):
        await world.reconcile()
    assert "status" not in world.cluster.objects[PIPELINE_DEPLOYMENT, "default", "llama"]


async def test_events_wait_for_the_status_and_a_lost_one_stops_nothing(caplog):
    world = World(
        lambda observed: Decision(
            status={"a": 1}, notices=(Notice("Normal", "One", "1."), Notice("Warning", "Two", "2."))
        )
    )
    world.cluster.fault = lambda verb, subject: Busy("away") if verb == "status" else None
    with pytest.raises(Later):
        await world.reconcile()
    assert world.cluster.events == []
    world.cluster.fault = lambda verb, subject: Busy("away") if subject == "One" else None
    with caplog.at_level(logging.WARNING):
        await world.reconcile()
    assert [event["reason"] for event in world.cluster.events] == ["Two"]
    assert "Event One is lost: away" in caplog.text


async def test_a_status_that_may_wait_is_written_with_the_next_that_may_not():
    notice = Notice("Normal", "One", "1.")
    decisions = iter(
        [
            Decision(status={"a": 1}, status_waits=2.0, notices=(notice,)),
            Decision(status={"a": 2}, notices=(notice,)),
        ]
    )
    world = World(lambda observed: next(decisions))
    wait = await world.reconcile()
    assert wait == pytest.approx(2.0), "it is looked at again when it is due"
    assert world.cluster.calls == [], "neither status nor Event"
    assert await world.reconcile() is None
    assert world.cluster.verbs() == {"status": 1, "event": 1}


async def test_a_status_that_waits_is_written_when_nothing_follows():
    world = World(lambda observed: Decision(status={"a": 1}, status_waits=2.0))
    for _ in range(2):
        wait = await world.reconcile()
        assert world.cluster.calls == []
        await asyncio.sleep(wait / 2)
    assert await world.reconcile() == pytest.approx(wait / 2), "it waits from when it first might"
    await asyncio.sleep(wait / 2)
    await world.reconcile()
    assert world.cluster.verbs() == {"status": 1}


@pytest.mark.parametrize(
    ("takes", "wait"), [(0.01, 0.0), (0.5, 10.0), (9.0, LONGEST_PATIENCE_SECONDS)]
)
async def test_a_status_waits_longer_where_the_api_server_is_slow(takes, wait):
    world = World()
    world.decide = lambda observed: Decision(
        apply=() if world.cache.observed(KEY).of(SERVICE) else (world.child(),),
        status={"a": 1}, status_waits=0.0,
    )  # fmt: skip
    make = world.cluster.make

    async def slowly(obj):
        await asyncio.sleep(takes)
        return await make(obj)

    world.cluster.make = slowly
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        await asyncio.sleep(await world.reconcile() or 0)
        if "status" in world.cluster.verbs():
            break
    assert asyncio.get_running_loop().time() - began == pytest.approx(takes + wait, abs=1.0)


async def test_an_event_says_whom_it_is_about_and_fits_its_bounds():
    notice = Notice("Warning", "Long", "ü" * 2000, "Plan")
    world = World(lambda observed: Decision(notices=(notice,)))
    await world.reconcile()
    (event,) = world.cluster.events
    assert event["regarding"]["uid"] == world.resource["metadata"]["uid"]
    assert (event["type"], event["action"]) == ("Warning", "Plan")
    assert len(event["note"].encode()) <= 1024
    assert event["note"].endswith("ü…")


async def test_one_line_is_logged_for_a_decision_that_did_something(caplog):
    world = World()
    world.wishing(world.child())
    with caplog.at_level(logging.INFO):
        await world.reconcile()
        await world.reconcile()
    lines = [record for record in caplog.records if record.name.endswith("reconcile")]
    assert [line.getMessage() for line in lines] == ["made Service llama"]
    assert lines[0].key == "default/llama"


async def test_a_child_that_somebody_keeps_changing_is_brought_back_without_a_fight():
    """Changed at each turn for 5 minutes: soon a repair each 30 s, and one Event that says who."""
    world = World()
    world.put_child(spec="wished")
    world.wishing(world.child(spec="wished"))
    end = asyncio.get_running_loop().time() + 300
    while asyncio.get_running_loop().time() < end:
        live = world.cluster.objects[SERVICE, "default", "llama"]
        managed = [{"manager": "stageline", "time": "2"}, {"manager": "meddler", "time": "1"}]
        changed = {
            **live,
            "spec": "theirs",
            "metadata": {**live["metadata"], "managedFields": managed},
        }
        world.cache.heard("MODIFIED", world.cluster.put(changed))
        await world.reconcile()
        await asyncio.sleep(0.5)
    most = OFTEN + 1 + 300 / PAUSE_SECONDS
    assert OFTEN + 5 <= world.cluster.verbs()["restore"] <= most
    (event,) = world.cluster.events
    assert event["reason"] == "ChildContested"
    assert "Service llama is changed again and again by meddler" in event["note"]


async def test_a_new_wish_each_second_is_no_quarrel():
    world = World()
    for number in range(60):
        world.wishing(world.child(CONFIG_MAP, data={"number": str(number)}))
        await world.reconcile()
        await asyncio.sleep(1)
    assert world.cluster.verbs() == {"make": 1, "restore": 59}
    assert world.cluster.events == []


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


def test_a_decision_has_no_field_that_reconciling_does_not_know():
    known = {
        "first", "apply", "patch", "delete", "create", "status", "status_waits", "notices", "deeds",
        "again",
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(Decision)} == known
