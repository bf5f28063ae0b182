"""The controllers' queue under simulated time."""

import asyncio
import contextlib

import pytest

from stageline_local.client import ApiError
from stageline_local.controllers.work import Work

pytestmark = pytest.mark.looptime


async def looked_at(work, look, seconds):
    seen = []

    async def remember(key):
        seen.append((round(asyncio.get_running_loop().time(), 1), key))
        await look(key)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await work.run(remember)
    return seen


async def nothing(key):
    pass


async def test_each_key_once_in_order():
    work = Work()
    for key in "abab":
        work.add(key)
    assert await looked_at(work, nothing, 5) == [(0, "a"), (0, "b")]


async def test_key_that_comes_while_it_is_looked_at_is_looked_at_again():
    work, added = Work(), []

    async def look(key):
        if not added:
            added.append(key)
            work.add(key)

    work.add("a")
    assert await looked_at(work, look, 5) == [(0, "a"), (0, "a")]


async def test_refusals_are_tried_later_each_time_and_keep_no_other_waiting():
    work = Work()

    async def look(key):
        if key == "bad":
            raise ApiError(403, "Forbidden", "exceeded quota")

    work.add("bad")
    work.add("good")
    seen = await looked_at(work, look, 60)
    assert seen[:2] == [(0, "bad"), (0, "good")]
    times = [when for when, key in seen if key == "bad"]
    assert times[:5] == [0, 0.1, 0.3, 0.7, 1.5]
    assert len(times) <= 13, "a refusal has become a hot loop"
    assert times[-1] - times[-2] == pytest.approx(10)
