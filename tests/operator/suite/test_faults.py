"""Whatever fails on the way to the API server, the end is the same."""

import asyncio

import pytest

from stageline_operator.kinds import (
    CHILDREN,
    CONFIG_MAP,
    PIPELINE_DEPLOYMENT,
    POD,
    SECRET,
    SERVICE,
)


def _writes(method, path):
    return method != "GET"


def _reads(method, path):
    return method == "GET"


@pytest.mark.parametrize(
    ("status", "times", "which"),
    [(409, 6, _writes), (429, 6, _writes), (500, 6, _writes), (429, 3, _reads), (500, 3, _reads)],
)
async def test_requests_that_fail_are_made_up_for(world, status, times, which):
    world.proxy.fail(status, times, which, **{"Retry-After": "0"} if status == 429 else {})
    async with world.operating():
        await world.create()
        await world.settled()
    assert len((await world.everything())["pods"]) == 2


async def test_retry_after_is_honoured(world):
    async with world.operating():
        world.proxy.fail(429, 1, _writes, **{"Retry-After": "2"})
        await world.create()

        async def is_told():
            return world.proxy.writes()

        await world.eventually(is_told, "the first write was refused")
        await asyncio.sleep(1.5)
        assert len(world.proxy.writes()) <= 2, "it asked again though it had been told to wait"
        await world.settled()


async def test_watches_that_are_dropped_are_taken_up_again(world):
    async with world.operating():
        await world.create()
        await world.settled()
        for _ in range(3):
            world.proxy.drop_watches()
            await _heals(world)


async def _heals(world):
    """What happens to a child is noticed."""
    await world.delete(CONFIG_MAP, "llama-router")

    async def is_back():
        return await world.get(CONFIG_MAP, "llama-router")

    await world.eventually(is_back, "the ConfigMap is back")


async def test_what_ended_while_history_was_lost_is_noticed(world):
    """Each watch ends with 410, and none has told of the deletion before."""
    async with world.operating():
        await world.create()
        await world.settled()
        loop = asyncio.get_running_loop()

        def delete():
            work = world.delete(SERVICE, "llama-stages")
            asyncio.run_coroutine_threadsafe(work, loop).result(5)

        await asyncio.to_thread(world.proxy.forget_history, delete)

        async def is_back():
            return await world.get(SERVICE, "llama-stages")

        await world.eventually(is_back, "the Service is back", 10)


async def test_a_server_that_restarts_is_found_again(world):
    async with world.operating():
        await world.create()
        await world.settled()
        await asyncio.to_thread(world.api.restart)
        await _heals(world)
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"replicas": 2}})
        await world.settled()


async def test_an_operator_that_starts_finds_what_happened_without_it(world):
    async with world.operating():
        await world.create()
        await world.settled()
    await world.delete(SERVICE, "llama")
    await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"replicas": 2}})
    before = await world.list(POD)
    async with world.operating():
        await world.settled()
        assert await world.get(SERVICE, "llama")
    after = await world.list(POD)
    kept = {name: after[name]["metadata"]["uid"] for name in before}
    assert kept == {name: pod["metadata"]["uid"] for name, pod in before.items()}


async def test_a_restart_at_rest_writes_nothing(world):
    async with world.operating():
        await world.create()
        await world.settled()
        await world.quiet()
    count = len(world.proxy.writes())
    async with world.operating():
        await world.quiet()
    assert world.proxy.writes()[count:] == []


class Mortal:
    """A cluster on which the operator dies at its first write: done, but never heard of."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._is_dying = False
        self.died = asyncio.Event()

    def __getattr__(self, verb):
        call = getattr(self._cluster, verb)
        if verb in ("list", "get", "follow"):
            return call

        async def last(*args, **kwargs):
            if not self._is_dying:
                self._is_dying = True
                try:
                    await call(*args, **kwargs)
                finally:
                    self.died.set()
            await asyncio.Event().wait()

        return last


async def _live_and_die(world):
    """Lives of the operator, one write each, until one has nothing to write; gives their number."""
    for lives in range(200):
        mortal = []

        def wrap(cluster, mortal=mortal):
            mortal.append(Mortal(cluster))
            return mortal[0]

        async with world.operating(wrap=wrap):
            resource = await world.get(PIPELINE_DEPLOYMENT, "llama")
            done = asyncio.create_task(_settled_or_never(world, resource))
            dead = asyncio.create_task(mortal[0].died.wait())
            await asyncio.wait({done, dead}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
            ended = done.done()
            for task in (done, dead):
                task.cancel()
            await asyncio.gather(done, dead, return_exceptions=True)
        if ended:
            return lives
    raise AssertionError(f"no end after 200 lives; {await world.told()}")


async def _settled_or_never(world, resource):
    await world.settled(resource["metadata"]["name"])
    await world.quiet(0.3)


async def test_an_operator_that_dies_at_every_write_of_a_rollout_comes_to_the_same_end(world):
    async with world.operating():
        await world.create(image="worker:1")
        await world.settled()
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"image": "worker:2"}})
        await world.settled()
        await world.quiet()
        reference = await world.everything()
        await world.delete(PIPELINE_DEPLOYMENT, "llama")
    await _remove_children(world)

    await world.create(image="worker:1")
    lives = await _live_and_die(world)
    await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"image": "worker:2"}})
    lives += await _live_and_die(world)
    assert lives >= 20, "it died at each of its writes"
    assert await world.everything() == reference


async def _remove_children(world):
    """As garbage collection does."""
    for kind in (*CHILDREN, SECRET):
        for name in await world.list(kind):
            await world.delete(kind, name, grace_seconds=0)
