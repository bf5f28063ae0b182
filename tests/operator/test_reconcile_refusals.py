"""Reconciling where a name is taken or the API server refuses: said, remembered, tried again."""

import asyncio

import pytest

from stageline_operator.cluster import Refused
from stageline_operator.decision import Decision
from stageline_operator.kinds import CONFIG_MAP, POD, SERVICE
from stageline_operator.memory import ASK_AGAIN_SECONDS
from stageline_operator.quarrels import OFTEN, PAUSE_SECONDS
from stageline_operator.queue import Later
from support.reconciled import KEY, World

pytestmark = pytest.mark.looptime


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
    assert world.cluster.verbs() == {"create": 2, "get": 1}, "a taken name is not asked for again"
    assert world.cluster.objects[SERVICE, "default", "llama"] == before


async def test_nothing_is_created_before_it_is_decided_anew_what_a_refusal_means():
    world = World()
    world.decide = lambda observed: (
        Decision()
        if observed.refused
        else Decision(apply=(world.child(CONFIG_MAP),), create=(world.child(POD, "p"),))
    )
    world.cluster.fault = lambda verb, subject: Refused("no") if verb == "create" else None
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


async def test_what_was_refused_is_tried_again_though_the_status_took_longer_than_the_wait():
    world = World()
    world.wishing(world.child(), status={"phase": "x"})
    write = world.cluster.apply_status

    async def slowly(*what):
        await asyncio.sleep(ASK_AGAIN_SECONDS + 1)
        return await write(*what)

    world.cluster.apply_status = slowly
    world.cluster.fault = lambda verb, subject: Refused("no") if verb == "create" else None
    assert await world.reconcile() == 0, "nobody would tell that it is allowed by now"
    world.cluster.fault = lambda verb, subject: None
    await world.reconcile()
    assert world.cluster.of(SERVICE) == ["llama"]


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
    world.cluster.fault = lambda verb, subject: Refused("no") if verb == "create" else None
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


@pytest.mark.parametrize("kind", [SERVICE, POD], ids=lambda kind: kind.plural)
async def test_a_child_that_somebody_keeps_deleting_is_made_anew_without_a_fight(kind):
    """Deleted at each turn for 5 minutes: soon it is made each 30 s, and one Event tells of it."""
    world = World()
    wished = world.child(kind)
    world.decide = lambda observed: (
        Decision()
        if observed.of(kind)
        else Decision(create=(wished,))
        if kind == POD
        else Decision(apply=(wished,))
    )
    end = asyncio.get_running_loop().time() + 300
    while asyncio.get_running_loop().time() < end:
        gone = world.cluster.objects.pop((kind, "default", "llama"), None)
        if gone is not None:
            world.cache.found_gone(KEY, kind, "llama")
        await world.reconcile()
        await asyncio.sleep(0.5)
    most = OFTEN + 1 + 300 / PAUSE_SECONDS
    assert OFTEN + 5 <= world.cluster.verbs()["create"] <= most
    (event,) = world.cluster.events
    assert event["note"].startswith(f"{kind.kind} llama is deleted again and again: it is made")


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
    assert world.cluster.verbs() == {"create": 1, "restore": 59}
    assert world.cluster.events == []
