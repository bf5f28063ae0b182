"""Lists: before the first decision, and whenever a watch may have missed something."""

import asyncio
import contextlib
import logging

import pytest

from stageline_operator.cache import WATCHED, Cache, Key
from stageline_operator.cluster import Busy, Gone
from stageline_operator.kinds import PIPELINE_DEPLOYMENT, SERVICE
from stageline_operator.labels import OWNER
from stageline_operator.lists import Lists
from support.memory_cluster import MemoryCluster

pytestmark = pytest.mark.looptime
KEY = Key("default", "llama")


class World:
    """A cluster with a resource and its Service, and the lists under test."""

    def __init__(self):
        self.cluster, self.cache, self.changed = MemoryCluster(), Cache(), []
        self.lists = Lists(self.cluster, self.cache, (), self.changed.append)
        self.resource = self.cluster.put(
            {"apiVersion": PIPELINE_DEPLOYMENT.api_version, "kind": PIPELINE_DEPLOYMENT.kind,
             "metadata": {"name": "llama"}}
        )  # fmt: skip
        self.put_service()

    def put_service(self):
        owner = {"kind": PIPELINE_DEPLOYMENT.kind, "name": "llama", "controller": True,
                 "uid": self.resource["metadata"]["uid"]}  # fmt: skip
        metadata = {"name": "llama", "labels": {OWNER: "llama"}, "ownerReferences": [owner]}
        return self.cluster.put({"apiVersion": "v1", "kind": "Service", "metadata": metadata})

    @contextlib.asynccontextmanager
    async def keeping(self):
        await self.lists.first()
        self.changed.clear()
        self.cluster.calls.clear()
        task = asyncio.create_task(self.lists.keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def services(self):
        return list(self.cache.observed(KEY).of(SERVICE))


async def test_everything_is_known_before_the_first_decision():
    world = World()
    assert not world.lists.complete
    await world.lists.first()
    assert world.lists.complete
    assert [plural for _, plural in world.cluster.calls] == [kind.plural for kind in WATCHED]
    assert set(world.changed) == {KEY}
    assert world.services() == ["llama"]


async def test_only_the_namespaces_that_are_served_are_listed():
    cluster, places = MemoryCluster(), []

    async def noted(kind, namespace, selector=""):
        places.append(namespace)
        return await MemoryCluster.list(cluster, kind, namespace, selector)

    cluster.list = noted
    await Lists(cluster, Cache(), ("a", "b"), lambda key: None).first()
    assert set(places) == {"a", "b"}


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Busy("no answer from the API server: refused"), "no answer from the API server"),
        (Gone("page not found"), "install its CustomResourceDefinition"),
    ],
)
async def test_what_keeps_it_from_starting_is_said_once_and_outlasted(caplog, error, sentence):
    world = World()
    world.cluster.fault = lambda verb, subject: error
    with caplog.at_level(logging.INFO):
        first = asyncio.create_task(world.lists.first())
        await asyncio.sleep(300)
        assert caplog.text.count(sentence) == 1
        assert not world.lists.complete
        assert len(world.cluster.calls) < 40, "it asks ever more rarely"
        world.cluster.fault = lambda verb, subject: None
        await first
    assert world.lists.complete


async def test_nothing_is_listed_while_nothing_is_the_matter():
    world = World()
    async with world.keeping():
        for obj in world.cluster.objects.values():
            world.cache.heard("ADDED", obj)
        await asyncio.sleep(500)
        assert world.cluster.calls == []
        await asyncio.sleep(200)
        assert len(world.cluster.calls) == len(WATCHED), "every ten minutes, to be sure"
        assert world.changed == []


async def test_a_watch_that_began_anew_may_have_missed_an_end():
    world = World()
    async with world.keeping():
        world.cluster.remove(SERVICE, "llama")
        world.lists.watch_began_anew()
        await asyncio.sleep(2)
        assert world.services() == []
        assert world.changed == [KEY]


async def test_what_a_watch_owes_for_long_is_fetched_and_its_silence_remembered():
    """The answer to a write is known, the watch tells nothing for minutes."""
    world = World()
    async with world.keeping():
        for obj in world.cluster.objects.values():
            world.cache.heard("ADDED", obj)
        clock = asyncio.get_running_loop().time
        world.cache.answered(KEY, world.put_service(), clock())
        newer = world.put_service()
        await asyncio.sleep(70)
        assert world.cluster.verbs() == {"list": len(WATCHED)}
        seen = world.cache.observed(KEY).of(SERVICE)["llama"]["metadata"]["resourceVersion"]
        assert seen == newer["metadata"]["resourceVersion"]
        kind, silence = world.cache.oldest_debt(clock())
        assert (kind, silence) == (SERVICE, pytest.approx(70))


async def test_a_list_that_fails_is_tried_again():
    world = World()
    async with world.keeping():
        world.cluster.remove(SERVICE, "llama")
        world.lists.watch_began_anew()
        world.cluster.fault = lambda verb, subject: Busy("away")
        await asyncio.sleep(5)
        assert world.services() == ["llama"]
        world.cluster.fault = lambda verb, subject: None
        await asyncio.sleep(5)
        assert world.services() == []
