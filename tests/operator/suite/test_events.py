"""Every transition that was ever written to status is told by one Event, and none twice."""

import asyncio
import contextlib
import re
from collections import Counter

from stageline_operator.kinds import EVENT, PIPELINE_DEPLOYMENT
from support.podstatus import crashing, waiting

STAGE = "llama-*-0-1"
BEGINNINGS = {"Reconciling": "True", "Stalled": "False"}


@contextlib.asynccontextmanager
async def noting(world):
    """Every transition that a write of status brings, as long as the block lasts."""
    seen, happened = {}, []

    async def note():
        path = PIPELINE_DEPLOYMENT.path(world.namespace)
        async for change in world.client.follow(path):
            status = change.object.get("status") or {}
            for one in status.get("conditions") or ():
                kind, now = one["type"], one["status"]
                if seen.get(kind, BEGINNINGS.get(kind, "Unknown")) != now:
                    happened.append((kind, now))
                seen[kind] = now

    task = asyncio.create_task(note())
    try:
        yield happened
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def told(world):
    """The transitions that the Events list."""
    found = []
    for event in (await world.list(EVENT)).values():
        listed = re.sub(r"\w+ still \w+", "", event["note"].partition(": ")[0])
        found += re.findall(r"(\w+) (True|False|Unknown)", listed)
    return found


async def all_told(world, happened):
    async def is_so():
        return Counter(await told(world)) == Counter(happened)

    try:
        await world.eventually(is_so, "the Events tell of what was written", seconds=5)
    except AssertionError:
        assert Counter(await told(world)) == Counter(happened)


async def test_a_start_a_failure_its_end_and_a_restart_of_the_operator(world):
    async with noting(world) as happened:
        async with world.operating():
            await world.create()
            await world.settled()
            await all_told(world, happened)
            assert ("Ready", "True") in happened
            world.nodes.fate(STAGE, crashing(1, "no space left on device"))

            async def is_down():
                return ("Ready", "False") in happened[happened.index(("Ready", "True")) :]

            await world.eventually(is_down, "the crash is written")
            await all_told(world, happened)
            world.nodes.mend(STAGE)
            await world.settled()
            await all_told(world, happened)
            await world.quiet()
        before = set(await world.list(EVENT))
        async with world.operating():
            await world.quiet()
        assert set(await world.list(EVENT)) == before, (
            "an operator that starts anew repeats nothing"
        )
        await all_told(world, happened)
    posts = [seen for seen in world.proxy.seen if seen.method == "POST" and "/events" in seen.path]
    writes = [seen for seen in world.proxy.seen if seen.path.endswith("/llama/status")]
    assert len(posts) <= len(writes), "those of one write share an Event"


async def test_a_link_that_falls_back_is_told_once_and_stands_in_status(world):
    why = "no socket link to llama-0-1:7070: Connection refused"

    async def falls_back():
        resource = await world.get(PIPELINE_DEPLOYMENT, "llama")
        first, second = resource["status"]["stages"]
        assert "transportNote" not in second
        return first.get("transportNote") == why and first["transport"] == "grpc"

    async def fallen():
        found = (await world.list(EVENT)).values()
        return [event for event in found if event["reason"] == "LinkFellBack"]

    async with world.operating():
        await world.create()
        await world.settled()
        world.nodes.ring("llama-*", note=why)
        await world.eventually(falls_back, "status says why")
        (event,) = await world.eventually(fallen, "an Event tells of it")
        assert event["type"] == "Warning"
        assert event["note"].endswith(f"sends over grpc: {why}")
    async with world.operating():
        await world.quiet()
        assert len(await fallen()) == 1


async def test_a_write_that_is_refused_is_told_once_it_came_through(world):
    async with noting(world) as happened, world.operating():
        world.proxy.fail(500, 3, lambda method, path: path.endswith("/status"))
        world.proxy.fail(409, 2, lambda method, path: path.endswith("/status"))
        world.nodes.fate(STAGE, waiting("ErrImagePull", "worker:nope: not found"))
        await world.create()

        async def is_told():
            return any(
                event["reason"] == "StageImagePull" for event in (await world.list(EVENT)).values()
            )

        await world.eventually(is_told, "the failure is told")
        world.nodes.mend(STAGE)
        await world.settled()
        await all_told(world, happened)
