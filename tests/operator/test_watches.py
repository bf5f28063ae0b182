"""Watches of the children: whatever becomes of a stream, what happens is told, and told once."""

import asyncio
import contextlib
import logging

import pytest

from stageline_operator.cache import WATCHED, Cache, Key
from stageline_operator.cluster import Busy, Change, Expired, Gone
from stageline_operator.kinds import CHILDREN, PIPELINE_DEPLOYMENT, POD
from stageline_operator.labels import OWNER
from stageline_operator.lists import Lists
from stageline_operator.watches import Watches
from support.memory_cluster import MemoryCluster

pytestmark = pytest.mark.looptime
KEY = Key("default", "llama")


class Streams(MemoryCluster):
    """What is told of pods comes from the test: changes, an end (None), or an error."""

    def __init__(self):
        super().__init__()
        self.told = asyncio.Queue()
        self.asked = []

    async def follow(self, kind, namespace, version, selector="", *, fields=""):
        self.asked.append((kind, namespace, version, selector))
        if kind != POD:
            await asyncio.Event().wait()
        while (told := await self.told.get()) is not None:
            if isinstance(told, Exception):
                raise told
            yield told


class World:
    """Pods, their watch under test, and what it has told."""

    def __init__(self):
        self.cluster, self.cache, self.heard = Streams(), Cache(), []
        kind = PIPELINE_DEPLOYMENT
        self.cluster.put(
            {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "llama"}}
        )
        self.lists = Lists(self.cluster, self.cache, (), lambda key: None)
        self.watches = Watches(self.cluster, self.lists, lambda *told: self.heard.append(told))

    @contextlib.asynccontextmanager
    async def watching(self):
        await self.lists.first()
        self.cluster.calls.clear()
        task = asyncio.create_task(self.watches.keep())
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def tell(self, *told):
        for one in told:
            self.cluster.told.put_nowait(one)
        await asyncio.sleep(1)

    def asked(self):
        """The versions from which pods were watched."""
        return [version for kind, _, version, _ in self.cluster.asked if kind == POD]


def pod(version, name="a"):
    metadata = {"name": name, "namespace": "default", "labels": {OWNER: "llama"},
                "uid": "u", "resourceVersion": str(version)}  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


async def test_each_kind_is_followed_from_where_its_list_ended():
    world = World()
    async with world.watching():
        await asyncio.sleep(1)
    assert [kind for kind, *_ in world.cluster.asked] == list(CHILDREN)
    expected = [(kind, None, world.lists.versions[kind, None], OWNER) for kind in CHILDREN]
    assert world.cluster.asked == expected


async def test_in_each_namespace_that_is_served():
    world = World()
    world.lists.places = ("a", "b")
    async with world.watching():
        await asyncio.sleep(1)
    assert {(place, kind) for kind, place, *_ in world.cluster.asked} == {
        (place, kind) for kind in CHILDREN for place in ("a", "b")
    }


async def test_a_stream_that_ends_or_breaks_goes_on_from_what_it_told_last():
    world = World()
    async with world.watching():
        await world.tell(Change("ADDED", pod(101)), Change("DELETED", pod(102)), None)
        await world.tell(Change("BOOKMARK", pod(140)), Busy("reset"))
        await world.tell(Change("ADDED", pod(150)))
    assert world.asked()[1:] == [102, 140]
    told = [(kind, obj["metadata"]["resourceVersion"]) for kind, obj in world.heard]
    assert told == [("ADDED", "101"), ("DELETED", "102"), ("ADDED", "150")]
    assert world.cluster.calls == [], "no list was needed"


async def test_where_history_is_lost_a_list_tells_what_ended():
    world = World()
    world.cluster.put({**pod(0), "metadata": {"name": "a", "labels": {OWNER: "llama"}}})
    async with world.watching():
        assert world.cache.observed(KEY) is not None
        assert world.cache.child(KEY, POD, "a")
        world.cluster.remove(POD, "a")
        await world.tell(Expired("too old"))
        assert world.cluster.calls == [("list", "pods")]
        assert world.cache.child(KEY, POD, "a") is None
        assert world.asked()[1] == world.lists.versions[POD, None]


@pytest.mark.parametrize("error", [Busy("away"), Gone("no such kind"), Expired("too old")])
async def test_what_fails_for_long_is_tried_ever_more_rarely_and_said(caplog, error):
    world = World()
    async with world.watching():
        world.cluster.fault = lambda verb, subject: Busy("the list is away")
        for _ in range(1000):
            world.cluster.told.put_nowait(error)
        with caplog.at_level(logging.WARNING):
            await asyncio.sleep(120)
        assert 10 < len(world.asked()) + len(world.cluster.calls) < 60
        assert "cannot watch pods: " in caplog.text


def test_every_kind_is_listed_that_is_watched():
    assert set(CHILDREN) < set(WATCHED)
