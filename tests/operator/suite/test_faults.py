"""Whatever fails on the way to the API server, the end is the same."""

import asyncio
import contextlib

import pytest

from stageline_operator.kinds import (
    CHILDREN,
    CONFIG_MAP,
    PIPELINE_DEPLOYMENT,
    POD,
    SECRET,
    SERVICE,
)
from stageline_operator.labels import STAGE


def _writes(method, path):
    return method != "GET"


def _reads(method, path):
    return method == "GET"


def _watches(method, path):
    return path.endswith("?watch")


@pytest.mark.parametrize(
    ("status", "times", "which"),
    [(409, 6, _writes), (429, 6, _writes), (500, 6, _writes), (429, 3, _reads), (500, 3, _reads),
     (410, 6, _watches)],
)  # fmt: skip
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


async def test_a_server_that_restarts_in_the_middle_of_a_rollout_is_found_again(world):
    async with world.operating():
        await world.create(image="worker:1")
        await world.settled()
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"image": "worker:2"}})
        await asyncio.to_thread(world.api.restart)
        await world.settled()
        assert await _images(world) == {"worker:2"}


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


class Doomed:
    """A cluster on which the operator dies at its nth request, before that is made."""

    def __init__(self, cluster, requests):
        self._cluster = cluster
        self._left = requests
        self.died = asyncio.Event()

    def __getattr__(self, verb):
        call = getattr(self._cluster, verb)
        if verb == "follow":
            return call

        async def counted(*args, **kwargs):
            self._left -= 1
            if self._left < 0:
                self.died.set()
                await asyncio.Event().wait()
            return await call(*args, **kwargs)

        return counted


class Mortal:
    """A cluster on which the operator dies at its first write: done, but never heard of."""

    def __init__(self, cluster, requests):
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


async def _live_and_die(world, kind):
    """Lives of the operator, until one has nothing to do; gives their number."""
    for lives in range(200):
        mortal = []

        def wrap(cluster, mortal=mortal, requests=lives):
            mortal.append(kind(cluster, requests))
            return mortal[0]

        async with _begun(world, wrap, mortal):
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


@contextlib.asynccontextmanager
async def _begun(world, wrap, mortal):
    """The operator, or the attempt to start one that dies on the way."""
    operating = world.operating(wrap=wrap)
    beginning = asyncio.create_task(operating.__aenter__())
    await asyncio.sleep(0)  # it has its cluster now
    dying = asyncio.create_task(mortal[0].died.wait())
    await asyncio.wait({beginning, dying}, return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    if beginning.done():
        await beginning
        try:
            yield
        finally:
            await operating.__aexit__(None, None, None)
        return
    beginning.cancel()
    await asyncio.gather(beginning, return_exceptions=True)
    yield


async def _settled_or_never(world, resource):
    await world.settled(resource["metadata"]["name"])
    await world.quiet(0.3)


@pytest.mark.parametrize("kind", [Mortal, Doomed], ids=["written", "about to ask"])
async def test_an_operator_that_dies_at_every_call_of_a_rollout_comes_to_the_same_end(world, kind):
    async with world.operating():
        await world.create(image="worker:1")
        await world.settled()
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"image": "worker:2"}})
        await world.settled()
        await world.quiet()
        reference = await _end(world)
        await world.delete(PIPELINE_DEPLOYMENT, "llama")
    await _remove_children(world)

    await world.create(image="worker:1")
    lives = await _live_and_die(world, kind)
    await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"image": "worker:2"}})
    lives += await _live_and_die(world, kind)
    assert lives >= 20, "it died at each of its calls"
    assert await _end(world) == reference


async def _end(world):
    """What there is, and what is said of it."""
    told = (await world.get(PIPELINE_DEPLOYMENT, "llama"))["status"]["conditions"]
    conditions = {(one["type"], one["status"], one["reason"]) for one in told}
    secrets = sorted(await world.list(SECRET))
    return await world.everything(), secrets, await _images(world), conditions


async def _images(world):
    pods = (await world.list(POD)).values()
    stages = [pod for pod in pods if STAGE in pod["metadata"]["labels"]]
    return {pod["spec"]["containers"][0]["image"] for pod in stages}


async def _remove_children(world):
    """As garbage collection does."""
    for kind in (*CHILDREN, SECRET):
        for name in await world.list(kind):
            await world.delete(kind, name, grace_seconds=0)
