"""/healthz of an operator at work: what it says is what is so."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from stageline_local.apiserver import served
from stageline_operator import health
from stageline_operator.metrics import Metrics
from support.kube import Server
from support.operator import operating
from support.processes import until


@pytest.fixture(scope="module")
def server():
    with served() as api:
        yield Server(api.url)


async def asked(operator, path="/healthz"):
    """Status and text, as a kubelet has them."""
    serving = health.serving("127.0.0.1", 0, operator.unhealthy, operator.unready, Metrics().text)
    async with (
        serving as port,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_an_operator_at_work_is_healthy(server):
    async with operating(server) as operator:
        assert await asked(operator) == (200, "ok\n")
        assert await asked(operator, "/readyz") == (200, "ok\n")


async def test_one_that_does_not_watch_any_more_is_not(server):
    async with operating(server) as operator:
        (watches,) = (task for task in operator._keepers if task.get_name() == "watches")
        watches.cancel()
        await until(watches.done, what="the end of the watches")
        assert await asked(operator) == (503, "what keeps the watches has ended\n")


async def test_one_whose_worker_has_died_is_not(server):
    async with operating(server) as operator:
        worker, *_ = operator.queue._tasks
        worker.cancel()
        await until(worker.done, what="the end of a worker")
        assert await asked(operator) == (503, "a reconcile worker has ended\n")


async def test_one_that_is_stuck_in_a_reconcile_is_not(server, monkeypatch):
    monkeypatch.setattr("stageline_operator.health.LONGEST_RECONCILE_SECONDS", 0.0)

    async def never(key):
        await asyncio.Event().wait()

    async with operating(server) as operator:
        monkeypatch.setattr(operator.queue, "_work", never)
        operator.queue.add(("default", "llama"))
        await until(lambda: operator.queue.oldest_running() > 0, what="a reconcile")
        status, text = await asked(operator)
        assert (status, text.startswith("one reconcile has taken")) == (503, True)
