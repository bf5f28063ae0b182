"""The floor of scale.py: the same children made by a plain client, that waits for nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from access import Server, connected
from fleet import AT_ONCE, CHILDREN, NAMESPACE, Fleet, count_pods, namespace_of, waiting_pods

from stageline_local.client import Client, Object

PATIENCE_SECONDS: Final = 900.0


async def plainly(
    server: Server, namespace: str, groups: list[list[Object]], fleet: Fleet, look_seconds: float
) -> float:
    """Seconds from the first request until every pod is Ready."""
    async with connected(server) as client:
        await client.create(NAMESPACE.place(), namespace_of(namespace))
        began = time.monotonic()
        await _in_turn(client, namespace, groups)
        while await count_pods(client, namespace) < fleet.pods or await waiting_pods(
            client, namespace
        ):
            if time.monotonic() > began + PATIENCE_SECONDS:
                raise SystemExit(f"the floor's pods are not Ready after {PATIENCE_SECONDS:g} s")
            await asyncio.sleep(look_seconds)
        return time.monotonic() - began


async def _in_turn(client: Client, namespace: str, groups: list[list[Object]]) -> None:
    """Pods are refused before their ServiceAccount, which is the first of a group."""
    kinds = {kind.kind: kind for kind in CHILDREN}
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(obj: Object) -> None:
        async with slots:
            await client.create(kinds[obj["kind"]].place(namespace), obj)

    async def group(account: Object, *others: Object) -> None:
        await one(account)
        await asyncio.gather(*map(one, others))

    await asyncio.gather(*(group(*objects) for objects in groups))
