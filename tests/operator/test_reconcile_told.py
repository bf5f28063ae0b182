"""What reconciling tells, and when: status, Events, the log."""

import asyncio
import logging

import pytest

from stageline_operator.cluster import Busy
from stageline_operator.decision import Decision, Notice
from stageline_operator.kinds import PIPELINE_DEPLOYMENT, SERVICE
from stageline_operator.memory import LONGEST_PATIENCE_SECONDS
from stageline_operator.queue import Later
from support.reconciled import KEY, World

pytestmark = pytest.mark.looptime


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


async def test_a_write_whose_answer_is_lost_is_told_once():
    def decide(observed):
        if observed.resource.get("status") == {"a": 1}:
            return Decision()
        return Decision(status={"a": 1}, notices=(Notice("Normal", "One", "1."),))

    world = World(decide)
    apply = world.cluster.apply_status

    async def lost(resource, status):
        written = await apply(resource, status)
        world.cache.heard("MODIFIED", written)
        raise Busy("no answer")

    world.cluster.apply_status = lost
    with pytest.raises(Later):
        await world.reconcile()
    assert world.cluster.events == []
    world.cluster.apply_status = apply
    for _ in range(3):
        await world.reconcile()
    assert [event["reason"] for event in world.cluster.events] == ["One"]
    assert world.cluster.verbs() == {"status": 1, "event": 1}


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
    ("takes", "wait"), [(0.01, 0.0), (0.5, 12.0), (9.0, LONGEST_PATIENCE_SECONDS)]
)
async def test_a_status_waits_longer_where_the_api_server_is_slow(takes, wait):
    world = World()
    world.decide = lambda observed: Decision(
        apply=() if world.cache.observed(KEY).of(SERVICE) else (world.child(),),
        status={"a": 1}, status_waits=0.0,
    )  # fmt: skip
    create = world.cluster.create

    async def slowly(obj):
        await asyncio.sleep(takes)
        return await create(obj)

    world.cluster.create = slowly
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        await asyncio.sleep(await world.reconcile() or 0)
        if "status" in world.cluster.verbs():
            break
    assert asyncio.get_running_loop().time() - began == pytest.approx(takes + wait, abs=1.0)


@pytest.mark.parametrize(
    ("rate", "wait"), [(9.0, 2.0), (40.0, 20.0), (900.0, LONGEST_PATIENCE_SECONDS)]
)
async def test_a_status_waits_longer_where_many_resources_move(rate, wait):
    world = World(lambda observed: Decision(status={"a": 1}, status_waits=2.0), rate)
    assert await world.reconcile() == pytest.approx(wait)
    world.decide = lambda observed: Decision(status={"a": 2})
    await world.reconcile()
    assert world.cluster.verbs() == {"status": 1}, "what may not wait does not"


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
