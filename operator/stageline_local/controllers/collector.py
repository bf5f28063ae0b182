"""The garbage collector: what nobody owns any more is deleted, also what was made too late."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from stageline_local.client import ApiError, Change, Client, Kind, Object, key
from stageline_local.controllers.garbage import (
    FOREGROUND,
    Owner,
    children,
    is_garbage,
    suspects,
    waits_for_children,
    without_finalizer,
)
from stageline_local.controllers.work import Work

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
_NO_OWNERS = {"Event", "ComponentStatus"}
"""Kinds that are many and own nothing."""


class GarbageCollector:
    """Follows every kind that can be listed, watched and deleted."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kinds: dict[tuple[str, str], Kind] = {}
        self._objects: dict[str, tuple[Kind, Object]] = {}
        self._work: Work[str] = Work()

    async def run(self) -> None:
        """Until cancelled."""
        kinds = await self._discovered()
        self._kinds = {(kind.api_version, kind.kind): kind for kind in kinds}
        async with asyncio.TaskGroup() as tasks:
            for kind in kinds:
                tasks.create_task(self._follow(kind))
            await self._work.run(self._look)

    async def _discovered(self) -> list[Kind]:
        while True:
            try:
                return await discover(self._client)
            except ApiError as error:
                _log.info("kinds not discovered: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _follow(self, kind: Kind) -> None:
        async for change in self._client.follow(kind.place()):
            if change.type != "SYNCED":
                self._see(kind, change)

    def _see(self, kind: Kind, change: Change) -> None:
        uid = change.object["metadata"]["uid"]
        if change.type == "DELETED":
            self._objects.pop(uid, None)
            for child in children(uid, self._all()):
                self._work.add(child["metadata"]["uid"])
            for owner in change.object["metadata"].get("ownerReferences") or ():
                self._work.add(owner["uid"])  # it may wait for its last child
            return
        self._objects[uid] = (kind, change.object)
        self._work.add(uid)

    def _all(self) -> Iterable[Object]:
        return (obj for _, obj in self._objects.values())

    async def _look(self, uid: str) -> None:
        if uid not in self._objects:
            return
        kind, obj = self._objects[uid]
        if waiting := waits_for_children(obj):
            await self._finish(kind, obj, waiting)
        elif not obj["metadata"].get("deletionTimestamp"):
            dead = [owner for owner in suspects(obj, self._objects) if await self._is_dead(owner)]
            if is_garbage(obj, lambda owner: owner not in dead):
                _log.info("collect %s %s/%s", kind.kind, *key(obj))
                await self._client.delete(kind.of(obj), uid=uid, propagation="Background")

    async def _is_dead(self, owner: Owner) -> bool:
        """Asked of the server: a watch may be behind."""
        kind = self._kinds.get((owner.api_version, owner.kind))
        if kind is None:  # nothing is known of such owners, so nothing is done
            return False
        try:
            found = await self._client.get(kind.place(owner.namespace, owner.name))
        except ApiError as error:
            if error.status == 404:
                return True
            raise
        return bool(found["metadata"]["uid"] != owner.uid)

    async def _finish(self, kind: Kind, obj: Object, finalizer: str) -> None:
        """Deletion in the foreground waits for the children to be gone; orphans are let go."""
        uid = obj["metadata"]["uid"]
        mine = [self._objects[child["metadata"]["uid"]] for child in children(uid, self._all())]
        for child_kind, child in mine:
            if finalizer == FOREGROUND:
                await self._client.delete(child_kind.of(child), propagation="Background")
            else:
                others = [r for r in child["metadata"]["ownerReferences"] if r["uid"] != uid]
                patch = {"metadata": {"ownerReferences": others}}
                await self._client.merge_patch(child_kind.of(child), patch)
        if finalizer == FOREGROUND and mine:
            return
        patch = {"metadata": {"finalizers": without_finalizer(obj, finalizer)}}
        try:
            await self._client.merge_patch(kind.of(obj), patch)
        except ApiError as error:
            if error.status != 404:
                raise


async def discover(client: Client) -> list[Kind]:
    """Every kind that can be listed, watched and deleted, in its group's preferred version."""
    groups = (await client.get("/apis"))["groups"]
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
    kinds: list[Kind] = []
    for version in versions:
        root = "/apis/" if "/" in version else "/api/"
        for resource in (await client.get(root + version))["resources"]:
            followable = {"list", "watch", "delete"} <= set(resource["verbs"])
            if followable and "/" not in resource["name"] and resource["kind"] not in _NO_OWNERS:
                kinds.append(
                    Kind(version, resource["kind"], resource["name"], resource["namespaced"])
                )
    return kinds
