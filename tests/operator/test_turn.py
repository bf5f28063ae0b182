"""Of two operators one serves and the other stands by, until it is its turn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from datetime import UTC, datetime

import pytest

from stageline_local.apiserver import served
from stageline_local.client import Client
from stageline_operator import lease
from stageline_operator.cluster import Busy, KubeCluster
from stageline_operator.kinds import LEASE
from stageline_operator.metrics import Metrics
from stageline_operator.turn import Turn, is_dead
from support.kube import Server, one_of
from support.operator import connection, serving_alone
from support.processes import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STANDING_BY = "operator-a holds the Lease stageline-operator-cluster in namespace default, and one"
ONE_OF_SOME = "operator-a holds the Lease stageline-operator in namespace default, and one operator"
A, B = "web/a/host-1_1", "web/b/host-2_1"
BOTH = (
    "the operator of release web/b wants to serve this namespace too, and stands by as long as the "
    "operator of release web/a does: uninstall one of the two"
)


@pytest.fixture(params=["double", "real"])
def server(request, tmp_path):
    with one_of(request, alone=tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def waiting(server, mine="operator-b", namespaces=(), **how):
    """Another operator, that wants its turn."""
    cluster = KubeCluster(connection(server), Metrics().requested)
    turn = Turn(cluster, namespaces, mine, **how)
    task = asyncio.create_task(turn.wait())
    try:
        yield turn, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cluster.close()


async def stands_by(turn):
    await until(lambda: turn.waits_for, 10, "it stands by")


async def test_the_second_stands_by_says_so_and_is_let_in_when_the_first_leaves(
    server, caplog, monkeypatch
):
    monkeypatch.setattr("stageline_operator.turn._LOOK_SECONDS", 0.05)
    async with contextlib.AsyncExitStack() as first:
        await first.enter_async_context(serving_alone(server))
        async with waiting(server) as (turn, task):
            await stands_by(turn)
            assert STANDING_BY in turn.standing_by()[0]
            await asyncio.sleep(0.3)
            assert not task.done(), "two operators serve at once"
            assert caplog.text.count("standing by") == 1, "it is said more than once"
            await first.aclose()
            async with asyncio.timeout(5):
                await task
            assert turn.standing_by() == []
        async with Client(server.url, token=server.token, ca_file=server.ca_file or None) as client:
            found = await client.get(LEASE.path("default", lease.NAME_OF_ALL))
        assert lease.holder(found) == "operator-b"
        assert found["spec"]["leaseTransitions"] == 1
        assert lease.mark(found) == "", "it waits for itself"


async def test_one_that_died_is_followed_when_its_lease_has_run_out(monkeypatch):
    monkeypatch.setattr("stageline_operator.turn._LOOK_SECONDS", 0.05)
    monkeypatch.setattr(lease, "DURATION_SECONDS", 1)
    with served() as api:
        server = Server(api.url)
        async with waiting(server, "operator-a") as (_, task):
            await task
        async with waiting(server) as (turn, task):
            await stands_by(turn)
            began = asyncio.get_running_loop().time()
            async with asyncio.timeout(5):
                await task
            assert asyncio.get_running_loop().time() - began >= 0.9


async def test_one_of_this_host_that_died_is_followed_at_once():
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    dead = f"{socket.gethostname()}_{gone.pid}"
    assert is_dead(dead)
    assert is_dead(f"web/a/{dead}")
    assert not is_dead(f"{socket.gethostname()}_1")
    assert not is_dead(f"elsewhere_{gone.pid}")
    assert not is_dead(f"{socket.gethostname()}_x")
    with served() as api:
        server = Server(api.url)
        async with waiting(server, dead) as (_, task):
            await task
        async with waiting(server, is_dead=is_dead) as (_, task), asyncio.timeout(1):
            await task


async def test_who_finds_its_lease_taken_is_told_by_whom(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    with served() as api:
        server = Server(api.url)
        async with waiting(server, "operator-b") as (turn, task):
            await task
            kept = asyncio.create_task(turn.keep())
            await asyncio.sleep(0.2)
            assert not kept.done(), "it gave up though nobody had taken anything"
            async with Client(server.url) as client:
                path = LEASE.path("default", lease.NAME_OF_ALL)
                await client.merge_patch(path, {"spec": {"holderIdentity": "operator-a"}})
            async with asyncio.timeout(5):
                assert STANDING_BY in await kept


async def test_an_api_server_that_is_silent_takes_no_turn_away(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)

    class Silent:
        asked = 0

        async def get(self, *_):
            self.asked += 1
            raise Busy("no answer from the API server")

    cluster = Silent()
    kept = asyncio.create_task(Turn(cluster, (), "operator-a").keep())
    await until(lambda: cluster.asked > 5, 5, "it asks again")
    assert not kept.done()
    kept.cancel()
    await asyncio.gather(kept, return_exceptions=True)


async def test_in_namespaces_each_has_its_lease_and_one_that_is_not_there_holds_nobody_up():
    with served() as api:
        server = Server(api.url)
        async with (
            serving_alone(server, ["default", "nowhere"]),
            waiting(server, namespaces=["kube-public"]) as (_, elsewhere),
            waiting(server, "operator-c", ["kube-public", "default"]) as (turn, task),
        ):
            async with asyncio.timeout(5):
                await elsewhere
            await stands_by(turn)
            assert ONE_OF_SOME in turn.waits_for
            assert not task.done()
            async with Client(server.url) as client:
                for place in ("kube-public", "default"):
                    found = await client.get(LEASE.path(place, lease.NAME))
                    assert lease.holder(found) != "operator-c", "it holds what it does not serve"


@contextlib.asynccontextmanager
async def keeping(turn):
    """The Leases are renewed until the block ends; gives how often a conflict began or ended."""
    told = []
    task = asyncio.create_task(turn.keep(lambda: told.append(turn.conflict("default"))))
    try:
        yield told
        assert not task.done(), f"it gave its turn up: {task.result()}"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("namespaces", [(), ("default", "kube-public")], ids=["all", "some"])
async def test_who_serves_learns_of_who_waits_and_that_it_waits_no_more(
    server, monkeypatch, namespaces
):
    monkeypatch.setattr("stageline_operator.turn._LOOK_SECONDS", 0.05)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    async with serving_alone(server, namespaces, A) as first, keeping(first) as told:
        assert first.conflict("default") == ""
        async with waiting(server, B, namespaces) as (second, task):
            for namespace in namespaces or ("default", "whichever"):
                await until(
                    lambda at=namespace: first.conflict(at), 5, f"a conflict in {namespace}"
                )
                assert first.conflict(namespace) == BOTH
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await second.release()
        await until(lambda: told[-1:] == [""], 5, "the conflict is over, and told")
        await asyncio.sleep(0.3)
    assert BOTH in told
    assert len(told) <= 2 * len(namespaces or "1"), "what is known is told again"


async def test_who_died_while_it_waited_is_forgotten_with_its_mark(monkeypatch):
    monkeypatch.setattr("stageline_operator.turn._LOOK_SECONDS", 0.05)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lease, "DURATION_SECONDS", 1)
    with served() as api:
        server = Server(api.url)
        async with serving_alone(server, (), A) as first, keeping(first):
            async with waiting(server, B):
                await until(lambda: first.conflict("default"), 5, "it learns of the other")
            await until(lambda: not first.conflict("default"), 5, "the mark has run out")
            async with Client(server.url) as client:
                found = await client.get(LEASE.path("default", lease.NAME_OF_ALL))
            assert lease.mark(found) == ""


async def test_a_mark_does_not_keep_a_holder_alive_that_has_died(monkeypatch):
    monkeypatch.setattr("stageline_operator.turn._LOOK_SECONDS", 0.05)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lease, "DURATION_SECONDS", 1)
    with served() as api:
        server = Server(api.url)
        async with waiting(server, A) as (_, task):
            await task
        async with waiting(server, B) as (turn, task):
            await stands_by(turn)
            async with asyncio.timeout(5):
                await task
            assert turn.conflict("default") == "", "it is in conflict with itself"


@pytest.mark.parametrize("other", ["web/a/host-3_1", "web/a/host-1_7"])
async def test_a_replica_of_the_same_release_waits_without_a_word_or_a_write(monkeypatch, other):
    monkeypatch.setattr("stageline_operator.turn._LOOK_SECONDS", 0.05)
    with served() as api:
        server = Server(api.url)
        async with serving_alone(server, (), A), Client(server.url) as client:
            path = LEASE.path("default", lease.NAME_OF_ALL)
            before = await client.get(path)
            async with waiting(server, other) as (turn, _):
                await stands_by(turn)
                await asyncio.sleep(0.3)
                assert await client.get(path) == before


def test_operators_are_of_one_release_when_both_say_so():
    assert lease.are_of_one_release(A, "web/a/host-9_9")
    assert not lease.are_of_one_release(A, B)
    assert not lease.are_of_one_release("host-1_1", "host-2_1"), "they were installed by nobody"
    assert lease.are_of_one_release("host-1_1", "host-1_1")
    assert lease.conflict("host-1_1", A).endswith("as long as operator host-1_1 does: uninstall "
                                                  "one of the two")  # fmt: skip


def test_a_lease_that_passes_on_counts_it_and_one_that_is_renewed_keeps_its_beginning():
    first = {"spec": lease.held(None, "a", NOW)}
    renewed = {"spec": lease.held(first, "a", NOW.replace(hour=1))}
    passed = {"spec": lease.held(renewed, "b", NOW.replace(hour=2))}
    assert first["spec"]["acquireTime"] == renewed["spec"]["acquireTime"]
    assert renewed["spec"]["renewTime"] == "2026-01-01T01:00:00.000000Z"
    assert passed["spec"]["acquireTime"] == passed["spec"]["renewTime"]
    assert [each["spec"]["leaseTransitions"] for each in (first, renewed, passed)] == [0, 0, 1]
    assert lease.holder({}) == lease.holder({"spec": {"holderIdentity": None}}) == ""
    assert lease.duration({"spec": {}}) == lease.DURATION_SECONDS
