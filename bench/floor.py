"""The floor of scale.py: the same children made by a plain client, that waits for nothing.

Where each resource is of another model also the pod that comes and goes, of which nothing is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle
from typing import Final

from access import Server, connected
from fakeworker import PROFILE_PODS
from fleet import (
    AT_ONCE,
    CHILDREN,
    NAMESPACE,
    Fleet,
    count_pods,
    namespace_of,
    together,
    waiting_pods,
)

from stageline_local.client import POD, Client, Object

PATIENCE_SECONDS: Final = 900.0


async def plainly(
    server: Server,
    namespaces: Sequence[str],
    groups: list[list[Object]],
    fleet: Fleet,
    look_seconds: float,
) -> float:
    """Seconds from the first request until every pod is Ready, and each that ends is deleted."""
    async with connected(server) as client:
        for namespace in namespaces:
            await client.create(NAMESPACE.place(), namespace_of(namespace))
        began = time.monotonic()
        await _in_turn(client, namespaces, groups)
        while not await _are_there(client, namespaces, fleet):
            if time.monotonic() > began + PATIENCE_SECONDS:
                raise SystemExit(f"the floor's pods are not Ready after {PATIENCE_SECONDS:g} s")
            await asyncio.sleep(look_seconds)
        return time.monotonic() - began


async def _are_there(client: Client, namespaces: Sequence[str], fleet: Fleet) -> bool:
    for place in map(POD.place, namespaces):
        ended = await client.list(place, labels=PROFILE_PODS, fields="status.phase=Succeeded")
        await together(client.delete(POD.of(pod)) for pod in ended)
    return await count_pods(client, namespaces) == fleet.pods and not await waiting_pods(
        client, namespaces
    )


def with_one_that_ends(group: list[Object]) -> list[Object]:
    """The children of one resource, and the pod that told of its model."""
    stage = next(obj for obj in group if obj["kind"] == POD.kind)
    metadata = stage["metadata"]
    name, _, value = PROFILE_PODS.partition("=")
    labels = {key: text for key, text in metadata["labels"].items() if "/stage" not in key}
    ends = {**metadata, "name": f"{metadata['name']}-profile", "labels": {**labels, name: value}}
    return [
        *group,
        {**stage, "metadata": ends, "spec": {**stage["spec"], "restartPolicy": "Never"}},
    ]


def _owned(obj: Object, account: Object) -> Object:
    """The children of a resource have an owner, which the garbage collector looks at."""
    owner = {
        "apiVersion": "v1", "kind": "ServiceAccount", "name": account["metadata"]["name"],
        "uid": account["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": [owner]}}


async def _in_turn(client: Client, namespaces: Sequence[str], groups: list[list[Object]]) -> None:
    """Pods are refused before their ServiceAccount, which is the first of a group."""
    kinds = {kind.kind: kind for kind in CHILDREN}
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(namespace: str, obj: Object) -> Object:
        async with slots:
            return await client.create(kinds[obj["kind"]].place(namespace), obj)

    async def group(namespace: str, account: Object, *others: Object) -> None:
        made = await one(namespace, account)
        await asyncio.gather(*(one(namespace, _owned(obj, made)) for obj in others))

    placed = zip(cycle(namespaces), groups, strict=False)
    await asyncio.gather(*(group(namespace, *objects) for namespace, objects in placed))
