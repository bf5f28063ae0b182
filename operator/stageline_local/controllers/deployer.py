"""The Deployment controller: makes and removes pods one step at a time."""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import UTC, datetime

from stageline_local.client import DEPLOYMENT, POD, ApiError, Change, Client, Object, key
from stageline_local.controllers.rolling import (
    deployment_status,
    new_pod,
    next_step,
)
from stageline_local.controllers.work import Work
from stageline_local.kubelet.status import timestamp

_log = logging.getLogger(__name__)
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class DeploymentController:
    """Looks at a Deployment whenever it or one of its pods has changed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._work: Work[tuple[str, str]] = Work()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_deployments())
            tasks.create_task(self._follow_pods())
            await self._work.run(self._advance)

    async def _follow_deployments(self) -> None:
        async for change in self._client.follow(DEPLOYMENT.place()):
            if change.type in ("ADDED", "MODIFIED"):
                self._work.add(key(change.object))

    async def _follow_pods(self) -> None:
        async for change in self._client.follow(POD.place()):
            if owner := _owner(change):
                self._work.add((change.object["metadata"]["namespace"], owner))

    async def _advance(self, where: tuple[str, str]) -> None:
        # Asked anew, not remembered: what this has made a moment ago is counted for sure.
        deployment = await self._found(where)
        if deployment is None or deployment["metadata"].get("deletionTimestamp"):
            return
        pods = await self._pods(deployment)
        step = next_step(deployment, pods)
        refused = await self._make(deployment, step.create)
        for name in step.delete:
            _log.info("deployment=%s/%s delete=%s", *where, name)
            await self._client.delete(POD.place(where[0], name))
        if step.create or step.delete:
            pods = await self._pods(deployment)
        await self._write(deployment, deployment_status(deployment, pods, _now()))
        if refused:
            raise refused

    async def _found(self, where: tuple[str, str]) -> Object | None:
        try:
            return await self._client.get(DEPLOYMENT.place(*where))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _pods(self, deployment: Object) -> list[Object]:
        labels = deployment["spec"]["selector"].get("matchLabels") or {}
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        place = POD.place(deployment["metadata"]["namespace"])
        uid = deployment["metadata"]["uid"]
        pods = await self._client.list(place, labels=selector)
        return [pod for pod in pods if _controller(pod).get("uid") == uid]

    async def _make(self, deployment: Object, count: int) -> ApiError | None:
        """Make pods. A refusal is returned: what else there is to do does not wait for it."""
        for _ in range(count):
            suffix = "".join(secrets.choice(_LETTERS) for _ in range(5))
            pod = new_pod(deployment, suffix)
            try:
                await self._client.create(POD.place(pod["metadata"]["namespace"]), pod)
            except ApiError as error:
                return error
            _log.info("deployment=%s create=%s", pod["metadata"]["namespace"], suffix)
        return None

    async def _write(self, deployment: Object, status: Object) -> None:
        before = deployment.get("status") or {}
        if all(before.get(name, 0) == value for name, value in status.items()):
            return
        uid = deployment["metadata"]["uid"]
        patch = {"metadata": {"uid": uid}, "status": status}
        try:
            await self._client.merge_patch(DEPLOYMENT.of(deployment), patch, subresource="status")
        except ApiError as error:
            if error.status not in (404, 409):  # gone meanwhile
                raise


def _controller(obj: Object) -> Object:
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), {})


def _owner(change: Change) -> str:
    """Name of the Deployment whose pod has changed, empty for any other pod."""
    if change.type == "SYNCED":
        return ""
    owner = _controller(change.object)
    return str(owner["name"]) if owner.get("kind") == "Deployment" else ""


def _now() -> str:
    return timestamp(datetime.now(UTC))
