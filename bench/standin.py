"""A stand-in for nodes, their scheduler and the Deployment controller, where a cluster has none.

Pods are bound, get an address and are Ready, and end when they are deleted. A Deployment gets its
one pod. With it scale.py needs nothing but an API server.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from stageline_local.client import DEPLOYMENT, POD, ApiError, Change, Client, Object
from stageline_local.controllers.rolling import deployment_status, is_ready, new_pod

_OURS: Final = "stageline.dev/deployment"
_AT_ONCE: Final = 32
_NODES: Final = 30
_Tend = Callable[[Change], Awaitable[None]]


class StandIn:
    """Tends what carries the operator's label."""

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self._address = address
        """Of every pod: all leaders are one process."""
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._turns = itertools.count()
        self._deployments: dict[str, Object] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as work:
            work.create_task(self._follow(work, DEPLOYMENT.place(), self._tend_deployment))
            work.create_task(self._follow(work, POD.place(), self._tend_pod))

    async def _follow(self, work: asyncio.TaskGroup, place: str, tend: _Tend) -> None:
        async for change in self._client.follow(place, labels=_OURS):
            if change.type in ("ADDED", "MODIFIED", "DELETED"):
                work.create_task(self._one(tend, change))

    async def _one(self, tend: _Tend, change: Change) -> None:
        async with self._slots:
            try:
                await tend(change)
            except ApiError as error:
                if error.status not in (404, 409):  # gone, or somebody was faster
                    raise

    async def _tend_deployment(self, change: Change) -> None:
        deployment = change.object
        uid = deployment["metadata"]["uid"]
        if change.type == "DELETED":
            self._deployments.pop(uid, None)
            return
        if uid not in self._deployments:
            pod = new_pod(deployment, "pod")
            await self._client.create(POD.place(deployment["metadata"]["namespace"]), pod)
        self._deployments[uid] = deployment

    async def _tend_pod(self, change: Change) -> None:
        pod = change.object
        if change.type == "DELETED":
            return
        if "deletionTimestamp" in pod["metadata"]:
            await self._client.delete(POD.of(pod), grace_seconds=0)
        elif "nodeName" not in pod["spec"]:
            await self._client.create(f"{POD.of(pod)}/binding", self._binding(pod))
        elif not pod["status"].get("podIP"):
            body = {"status": running(pod, self._address, _now())}
            await self._client.merge_patch(POD.of(pod), body, subresource="status")
        elif is_ready(pod) and (deployment := self._deployment_of(pod)) is not None:
            body = {"status": deployment_status(deployment, [pod], _now())}
            path = DEPLOYMENT.of(deployment)
            await self._client.merge_patch(path, body, subresource="status")

    def _deployment_of(self, pod: Object) -> Object | None:
        owners = pod["metadata"].get("ownerReferences") or ()
        found = (self._deployments.get(owner["uid"]) for owner in owners)
        return next(filter(None, found), None)

    def _binding(self, pod: Object) -> Object:
        node = f"fake-{next(self._turns) % _NODES}"
        return {
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }  # fmt: skip


def running(pod: Object, address: str, now: str) -> Object:
    """The status of a pod whose containers all run and are ready."""
    kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    return {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
        "conditions": [{"type": k, "status": "True", "lastTransitionTime": now} for k in kinds],
        "containerStatuses": [
            {
                "name": container["name"], "image": container["image"], "imageID": "",
                "ready": True, "started": True, "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in pod["spec"]["containers"]
        ],
    }  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
