"""The client against the double and against a real kube-apiserver."""

import asyncio

import pytest

from stageline_local.client import CONFIG_MAP, POD, ApiError, Client, Mirror
from support.embedded import found, pod, running
from support.processes import until


def config_map(name, labels=None, **data):
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


class Watcher:
    """Remembers what a `follow` tells."""

    def __init__(self, client, path, **selectors):
        self.told = []
        self._changes = client.follow(path, **selectors)

    async def run(self):
        async for change in self._changes:
            self.told.append(change)

    def lines(self):
        return [
            f"{c.type} {c.object['metadata']['name']}" if c.object else c.type for c in self.told
        ]


async def test_an_objects_life(client, namespace):
    path = CONFIG_MAP.place(namespace, "a")
    assert await found(client, path) is None
    made = await client.create(CONFIG_MAP.place(namespace), config_map("a", x="1"))
    assert CONFIG_MAP.of(made) == path
    patched = await client.merge_patch(path, {"data": {"y": "2"}})
    assert patched["data"] == {"x": "1", "y": "2"}
    await client.apply(path, config_map("a", x="3"), manager="somebody")
    assert (await client.get(path))["data"] == {"x": "3", "y": "2"}
    await client.delete(path)
    assert await found(client, path) is None
    await client.delete(path)


async def test_refusals_are_the_servers_sentences(client, namespace):
    place = CONFIG_MAP.place(namespace)
    await client.create(place, config_map("a"))
    with pytest.raises(ApiError, match='configmaps "a" already exists') as refused:
        await client.create(place, config_map("a"))
    assert (refused.value.status, refused.value.reason) == (409, "AlreadyExists")
    path = CONFIG_MAP.place(namespace, "b")
    await client.apply(path, config_map("b", x="1"), manager="one")
    with pytest.raises(ApiError, match='"one"') as refused:
        await client.apply(path, config_map("b", x="2"), manager="two", force=False)
    assert refused.value.status == 409
    with pytest.raises(ApiError) as refused:
        await client.delete(path, uid="somebody-elses")
    assert refused.value.status == 409


async def test_lists_take_selectors(client, namespace):
    place = CONFIG_MAP.place(namespace)
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "2"})):
        await client.create(place, config_map(name, labels))
    (item,) = await client.list(place, labels="x=2")
    assert (item["kind"], item["apiVersion"], item["metadata"]["name"]) == ("ConfigMap", "v1", "b")
    (item,) = await client.list(place, fields="metadata.name=a")
    assert item["metadata"]["name"] == "a"


async def test_pod_without_node_goes_at_once(client, namespace):
    await client.create(POD.place(namespace), pod("a", namespace=namespace))
    await client.delete(POD.place(namespace, "a"))
    assert await found(client, POD.place(namespace, "a")) is None


async def test_follow_tells_what_is_there_and_what_comes(client, namespace):
    place = CONFIG_MAP.place(namespace)
    await client.create(place, config_map("a", {"x": "1"}))
    await client.create(place, config_map("other"))
    watcher = Watcher(client, place, labels="x=1")
    async with running(watcher):
        await until(lambda: watcher.lines() == ["ADDED a", "SYNCED"])
        await client.create(place, config_map("b", {"x": "1"}))
        await client.merge_patch(CONFIG_MAP.place(namespace, "a"), {"data": {"y": "1"}})
        await client.delete(CONFIG_MAP.place(namespace, "b"))
        expected = ["ADDED a", "SYNCED", "ADDED b", "MODIFIED a", "DELETED b"]
        await until(lambda: watcher.lines() == expected)


async def test_what_leaves_the_selection_is_deleted_to_who_follows(client, namespace):
    place = CONFIG_MAP.place(namespace)
    await client.create(place, config_map("a", {"x": "1"}))
    watcher = Watcher(client, place, labels="x=1")
    async with running(watcher):
        await until(lambda: "SYNCED" in watcher.lines())
        await client.merge_patch(CONFIG_MAP.place(namespace, "a"), {"metadata": {"labels": None}})
        await until(lambda: watcher.lines()[-1] == "DELETED a")


async def test_mirror_has_what_the_server_has(client, namespace):
    mirror = Mirror(client, CONFIG_MAP, namespace=namespace)
    place = CONFIG_MAP.place(namespace)
    await client.create(place, config_map("big", text="x" * 300_000))
    async with running(mirror):
        await asyncio.wait_for(mirror.synced.wait(), 10)
        await client.create(place, config_map("bigger", text="y" * 900_000))
        await until(lambda: (namespace, "bigger") in mirror.objects)
        await client.delete(CONFIG_MAP.place(namespace, "big"))
        await until(lambda: (namespace, "big") not in mirror.objects)
        assert len(mirror.objects[namespace, "bigger"]["data"]["text"]) == 900_000


async def test_nobody_there_is_a_sentence(unused_tcp_port):
    async with Client(f"http://127.0.0.1:{unused_tcp_port}") as client:
        with pytest.raises(ApiError, match="no answer from http") as refused:
            await client.get("/version")
        assert refused.value.status == 0
