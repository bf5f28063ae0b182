"""`follow` when the server fails: nothing is lost, nothing is told twice."""

import asyncio

import pytest

from stageline_local.apiserver import ApiServer
from stageline_local.client import CONFIG_MAP, Client, Mirror
from support.apiserver import config_map
from support.embedded import running
from support.processes import until

PLACE = CONFIG_MAP.place("default")


@pytest.fixture
async def api():
    server = ApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(api):
    async with Client(api.url) as client:
        yield client


@pytest.fixture
async def told(client):
    """What has been told so far, of three objects that were there."""
    for name in "abc":
        await client.create(PLACE, config_map(name))
    mirror, told = Mirror(client, CONFIG_MAP, namespace="default"), []

    def hear(change):
        told.append((change.type, change.object and change.object["metadata"]["name"]))

    class Run:
        async def run(self):
            await mirror.run(
                lambda c: told.append((c.type, c.object and c.object["metadata"]["name"]))
            )

    async with running(Run()):
        await until(lambda: len(told) >= 4)
        yield told


def watches(api):
    return sum("watch=true" in request.query for request in api.requests)


async def test_dropped_stream_is_resumed_where_it_broke(api, client, told):
    for name in "de":
        before = watches(api)
        api.drop_watches()
        await client.create(PLACE, config_map(name))
        await until(lambda name=name: ("ADDED", name) in told)
        assert watches(api) > before
    lists = [r for r in api.requests if r.method == "GET" and "watch" not in r.query]
    assert len(lists) == 1, "it listed again though the server knew where it was"
    assert len(told) == 6


async def test_expired_version_leads_to_the_difference(api, client, told):
    port = int(api.url.rpartition(":")[2])
    await until(lambda: watches(api))
    await api.stop()
    # While nobody follows: one goes, one changes, one goes and comes as another.
    async with Client(await api.start()) as other:
        await other.delete(f"{PLACE}/a")
        await other.merge_patch(f"{PLACE}/b", {"data": {"x": "1"}})
        await other.delete(f"{PLACE}/c")
        await other.create(PLACE, config_map("c"))
        await other.create(PLACE, config_map("d"))
    await api.stop()
    api.compact()
    await api.start(port=port)
    await until(lambda: ("ADDED", "d") in told, 20)
    assert sorted(told[4:]) == [
        ("ADDED", "c"), ("ADDED", "d"), ("DELETED", "a"), ("DELETED", "c"), ("MODIFIED", "b"),
    ]  # fmt: skip
    assert told[4:].index(("DELETED", "c")) < told[4:].index(("ADDED", "c"))


async def test_silent_server_is_waited_for(api, client, told):
    port = int(api.url.rpartition(":")[2])
    await api.stop()
    await asyncio.sleep(0.2)
    await api.start(port=port)
    await client.create(PLACE, config_map("d"))
    await until(lambda: ("ADDED", "d") in told, 20)
    assert told.count(("ADDED", "a")) == 1
