"""Two operators in one cluster: one serves, and what the other wants is told or left to it."""

import asyncio
import contextlib

import pytest

from stageline_operator import lease
from stageline_operator.cluster import KubeCluster
from stageline_operator.kinds import LEASE, PIPELINE_DEPLOYMENT
from stageline_operator.metrics import Metrics
from stageline_operator.settings import RenderSettings
from stageline_operator.turn import Turn
from support.faultyproxy import FaultyProxy
from support.kube import Server
from support.operator import connection, operating, serving_alone
from support.processes import until

ALL, OWN = "operators/all/host-1_1", "operators/own/host-2_1"


@pytest.fixture
def hasty(monkeypatch):
    """A Lease that nobody renews has run out within moments."""
    monkeypatch.setattr(lease, "DURATION_SECONDS", 2)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr("stageline_operator.turn._LOOK_SECONDS", 0.1)
    monkeypatch.setattr("stageline_operator.others._LOOK_SECONDS", 0.1)


def images(name):
    """Settings of an operator that would undo what one with other images has done."""
    return RenderSettings(
        worker_image=f"worker:{name}", router_image=f"router:{name}", allow_host_path=True
    )


@contextlib.asynccontextmanager
async def renewing(turn, contended=lambda: None):
    """Its Leases are renewed until the block ends."""
    task = asyncio.create_task(turn.keep(contended))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def own_operator(world, mine=OWN):
    """An operator for this namespace alone, with images of its own; gives the way that it goes."""
    with FaultyProxy(world.api.server) as proxy:
        server = Server(proxy.url)
        async with (
            serving_alone(server, [world.namespace], mine) as turn,
            renewing(turn),
            operating(server, [world.namespace], settings=images("own")),
        ):
            yield proxy


def of_namespace(world, seen):
    """Writes in the namespace, but for those to the Lease."""
    inside = f"/namespaces/{world.namespace}/"
    return [one for one in seen if inside in one.path and f"/{LEASE.plural}" not in one.path]


async def image_of(world, wanted):
    async def is_so():
        resource = await world.get(PIPELINE_DEPLOYMENT, "llama")
        pods = await world.list_images()
        settled = resource["status"].get("updatedReplicas") == 1
        return settled and pods == {wanted}

    await world.eventually(is_so, f"every stage runs {wanted}", 40)
    await world.settled(seconds=40)


@pytest.fixture
def world_of_images(world):
    async def list_images():
        found = await world.client.list(f"/api/v1/namespaces/{world.namespace}/pods")
        return {
            pod["spec"]["containers"][0]["image"] for pod in found
            if "stageline.dev/stage" in pod["metadata"]["labels"]
        }  # fmt: skip

    world.list_images = list_images
    return world


async def test_an_operator_of_all_leaves_a_namespace_to_its_own_and_takes_it_back(
    world_of_images, hasty
):
    world = world_of_images
    everywhere = operating(Server(world.proxy.url), (), settings=images("all"))
    async with everywhere as operator:
        await world.create()
        await image_of(world, "worker:all")
        async with own_operator(world) as own:
            await until(lambda: operator.unserved, 5, "it has heard of the Lease")
            before = len(of_namespace(world, world.proxy.writes()))
            await image_of(world, "worker:own")
            await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"replicas": 2}})
            await world.settled(seconds=40)
            await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"replicas": 1}})
            await world.settled(seconds=40)
            written = of_namespace(world, world.proxy.writes())[before:]
            assert written == [], "it writes where another serves"
            await asyncio.sleep(1.5)
            count = len(of_namespace(world, own.writes()))
            await asyncio.sleep(2)
            assert len(of_namespace(world, own.writes())) == count, "the two are at war"
        assert operator.unserved == {world.namespace}, "an update would change every image"
        await image_of(world, "worker:all")
        assert operator.unserved == set()


async def test_one_that_begins_where_another_serves_does_nothing_there(world, hasty):
    async with own_operator(world):
        await world.create()
        await world.settled()
        async with operating(Server(world.proxy.url), (), settings=images("all")):
            await asyncio.sleep(1)
            await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"replicas": 2}})
            await world.settled()
            assert of_namespace(world, world.proxy.writes()) == []


async def test_a_silent_watch_takes_no_namespace_back(world, hasty):
    async with own_operator(world):
        await world.create()
        await world.settled()
        async with operating(Server(world.proxy.url), (), settings=images("all")) as operator:
            world.proxy.silence_watches()
            await asyncio.sleep(4 * lease.DURATION_SECONDS / 2)
            assert operator.unserved == {world.namespace}
            assert of_namespace(world, world.proxy.writes()) == []


@contextlib.asynccontextmanager
async def serving(world, places):
    """An operator that holds its Leases; gives what holds them."""
    server = Server(world.proxy.url)
    async with (
        serving_alone(server, places, OWN) as turn,
        operating(server, places, conflict=turn.conflict) as operator,
        renewing(turn, operator.look_at_all),
    ):
        yield turn


async def test_a_second_release_is_told_by_the_resources_until_it_is_gone(world, hasty):
    async with serving(world, [world.namespace]):
        await world.create()
        await world.settled()
        await conflict(world, is_there=False)
        async with standing_by(world, "operators/two/host-3_1"):
            told = await conflict(world, is_there=True)
            assert (told["status"], told["reason"]) == ("True", "SecondOperator")
            assert told["message"] == (
                "the operator of release operators/two wants to serve this namespace too, and "
                "stands by as long as the operator of release operators/own does: uninstall one "
                "of the two"
            )
            await world.settled()
            writes = of_namespace(world, world.proxy.writes())
            await asyncio.sleep(2)
            assert of_namespace(world, world.proxy.writes()) == writes, "it is told again"
        await conflict(world, is_there=False)
        await world.settled()


async def test_a_replica_of_the_same_release_is_no_conflict(world, hasty):
    async with serving(world, [world.namespace]) as turn:
        await world.create()
        await world.settled()
        async with standing_by(world, "operators/own/host-4_1"):
            await asyncio.sleep(1)
            assert turn.conflict(world.namespace) == ""


@contextlib.asynccontextmanager
async def standing_by(world, mine):
    """Another operator, that waits for its turn until it leaves in order."""
    cluster = KubeCluster(connection(world.api.server), Metrics().requested)
    turn = Turn(cluster, [world.namespace], mine)
    task = asyncio.create_task(turn.wait())
    try:
        await until(lambda: turn.waits_for, 10, "it stands by")
        yield
        assert not task.done(), "two operators serve at once"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await turn.release()
        await cluster.close()


async def conflict(world, *, is_there):
    """The condition, once it is there or not."""

    async def found():
        resource = await world.get(PIPELINE_DEPLOYMENT, "llama")
        told = (resource.get("status") or {}).get("conditions") or []
        one = next((c for c in told if c["type"] == "OperatorConflict"), None)
        return (one,) if (one is not None) == is_there else None

    (one,) = await world.eventually(found, f"OperatorConflict is there: {is_there}")
    return one
