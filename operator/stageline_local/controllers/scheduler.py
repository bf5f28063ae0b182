"""The scheduler: gives pending pods a node, or says why there is none."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from stageline_local.client import NODE, POD, ApiError, Change, Client, Mirror, Object, key
from stageline_local.controllers.placing import obstacles, refusal
from stageline_local.controllers.work import Work
from stageline_local.kubelet.events import Recorder
from stageline_local.kubelet.status import timestamp


class Scheduler:
    """One after the other, in the order in which they were made."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pods = Mirror(client, POD)
        self._nodes = Mirror(client, NODE)
        self._work: Work[tuple[str, str]] = Work()
        self._events = Recorder(client, "default-scheduler")
        self._bound: dict[str, str] = {}
        """Node by uid, of pods whose binding the watch has not shown yet."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._nodes.run(lambda change: self._again()))
            tasks.create_task(self._pods.run(self._on_pod))
            tasks.create_task(self._events.run())
            await self._nodes.synced.wait()
            await self._pods.synced.wait()
            await self._work.run(self._place)

    def _on_pod(self, change: Change) -> None:
        if change.type == "SYNCED":
            return
        pod = change.object
        if change.type == "DELETED" or pod["spec"].get("nodeName"):
            self._bound.pop(pod["metadata"]["uid"], None)
        if change.type == "DELETED":
            self._events.forget(pod)
        if change.type == "DELETED" or _is_over(pod):
            self._again()
        elif _is_pending(pod):
            self._work.add(key(pod))

    def _again(self) -> None:
        """Room may have come."""
        for where, pod in sorted(self._pods.objects.items(), key=lambda item: _age(item[1])):
            if _is_pending(pod):
                self._work.add(where)

    async def _place(self, where: tuple[str, str]) -> None:
        pod = self._pods.objects.get(where)
        if pod is None or not _is_pending(pod) or pod["metadata"]["uid"] in self._bound:
            return
        against = self._obstacles(pod)
        fitting = next((node for node, found in against.items() if not found), None)
        if fitting is None:
            await self._say(pod, refusal(list(against.values())))
        else:
            await self._bind(pod, fitting)

    def _obstacles(self, pod: Object) -> dict[str, list[str]]:
        return {
            name: obstacles(pod, node, self._on(name))
            for (_, name), node in self._nodes.objects.items()
            if "allocatable" in (node.get("status") or {})  # else it is still registering
        }

    def _on(self, node: str) -> list[Object]:
        return [
            pod
            for pod in self._pods.objects.values()
            if node in (pod["spec"].get("nodeName"), self._bound.get(pod["metadata"]["uid"]))
        ]

    async def _bind(self, pod: Object, node: str) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        self._bound[uid] = node
        try:
            await self._client.create(f"{POD.of(pod)}/binding", binding)
        except ApiError as error:
            del self._bound[uid]
            if error.status not in (404, 409):  # gone, or somebody else's binding came first
                raise
        else:
            where = "/".join(key(pod))
            self._events.tell(pod, "Scheduled", f"Successfully assigned {where} to {node}")

    async def _say(self, pod: Object, message: str) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        conditions = (pod.get("status") or {}).get("conditions") or []
        if any(condition.items() <= there.items() for there in conditions):
            return
        self._events.tell(pod, "FailedScheduling", message, warning=True)
        condition["lastTransitionTime"] = timestamp(datetime.now(UTC))
        patch = {"status": {"conditions": [condition]}}
        try:
            await self._client.merge_patch(POD.of(pod), patch, subresource="status")
        except ApiError as error:
            if error.status != 404:
                raise


def _is_pending(pod: Object) -> bool:
    return not (pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"))


def _is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _age(pod: Object) -> tuple[str, str]:
    return pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]
