"""One resource on an embedded cluster of its own, with the operator that looks after it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol

import yaml

from stageline_api.crd import PLURAL
from stageline_api.resource import API_VERSION, KIND
from stageline_cli.summary import is_ready
from stageline_cli.verdict import hopeless
from stageline_local.client import POD, ApiError, Change, Client, Kind, Object, key
from stageline_local.cluster import EmbeddedCluster, kubeconfig
from stageline_local.process import ProcessSpec
from stageline_local.runtime import Runtime
from stageline_local.statedir import StateDir
from stageline_operator.labels import OWNER, STAGE
from stageline_operator.names import revision as revision_name
from stageline_operator.names import router_service

STOP_SECONDS = 20.0
_PIPELINE_DEPLOYMENT = Kind(API_VERSION, KIND, PLURAL)
_REVISION = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
_NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
_OPERATOR = "operator"
_OPERATOR_GRACE_SECONDS = 2.0
_HOPELESS_DEATHS = 3
_GONE_SECONDS = 40.0
_BETWEEN_SHOWS_SECONDS = 0.1


class GaveUp(Exception):
    """The resource cannot become ready; the message is the sentence that says why."""


class Audience(Protocol):
    """Who is told what there is to see, from the event loop."""

    def show(self, resource: Object) -> None:
        """The resource, a few times a second at most."""
        ...

    def planned(self, record: Object) -> None:
        """A plan that is new: the record of its revision."""
        ...

    def say(self, line: str) -> None:
        """Something else that happened."""
        ...


class Serving:
    """One `stageline up`. `stop` and `kill` may be called at any time, from the event loop."""

    def __init__(self, resource: Object, port: int, state: StateDir, audience: Audience) -> None:
        self._wanted = resource
        self._name = resource["metadata"]["name"]
        self._namespace = resource["metadata"]["namespace"]
        self._port = port
        self._state = state
        self._audience = audience
        self._resource: Object | None = None
        self._pods: dict[str, Object] = {}
        self._revision = ""
        self._was_ready = False
        self._changed = asyncio.Event()
        self._end = asyncio.Event()
        self._kill = asyncio.Event()
        self._gave_up: str | None = None
        self._operator = Runtime(self._see_operator)
        self._operator_restarts = 0

    def stop(self) -> None:
        """End in order: the router drains, then the stages go, first to last."""
        self._end.set()

    def kill(self) -> None:
        """End at once."""
        self._end.set()
        self._kill.set()

    async def run(self) -> None:
        """Return after an end in order, at once, or by deletion; GaveUp when there is no use."""
        cluster = EmbeddedCluster(
            self._state.path,
            resources=_accelerators(),
            computes=_is_stage,
            host_port=self._host_port,
        )
        async with cluster, Client(cluster.url, agent="stageline up") as client, self._operator:
            cluster.kubeconfig.write_text(yaml.safe_dump(kubeconfig(cluster.url, self._namespace)))
            self._operator.keep([self._operator_spec(cluster.url)])
            await self._create(client)
            self._audience.say(
                f"look from another terminal: kubectl --kubeconfig {self._state.kubeconfig} get pld"
            )
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(helper) for helper in self._helpers(client, cluster)]
                await self._end.wait()
                for helper in helpers:
                    helper.cancel()
            await self._operator.stop(_OPERATOR)
            await self._stop(cluster)
        if self._gave_up:
            raise GaveUp(self._gave_up)

    def _helpers(self, client: Client, cluster: EmbeddedCluster) -> list[Coroutine[Any, Any, None]]:
        return [
            self._follow(client),
            self._follow_pods(client),
            self._look(client),
            cluster.failed(),
        ]

    def _host_port(self, service: Object, port: int) -> int | None:
        """The router's Service is where clients look for it."""
        ours = (self._namespace, router_service(self._name))
        return self._port if key(service) == ours else None

    def _operator_spec(self, url: str) -> ProcessSpec:
        module = (sys.executable, "-m", "stageline_operator")
        options = ("--server", url, "--allow-host-path", "--health-port", "0")
        return ProcessSpec(
            _OPERATOR,
            (*module, *options),
            self._state.log(_OPERATOR),
            {"PYTHONUNBUFFERED": "1"},
            _OPERATOR_GRACE_SECONDS,
        )

    async def _create(self, client: Client) -> None:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self._namespace}}
        with contextlib.suppress(ApiError):  # it is there: `default` always is
            await client.create(_NAMESPACE.place(), namespace)
        try:
            await client.create(_PIPELINE_DEPLOYMENT.place(self._namespace), self._wanted)
        except ApiError as error:
            raise GaveUp(str(error)) from None

    async def _follow(self, client: Client) -> None:
        place = _PIPELINE_DEPLOYMENT.place(self._namespace)
        async for change in client.follow(place, fields=f"metadata.name={self._name}"):
            if change.type == "DELETED":
                self._resource = None
                await self._after_deletion()
            elif change.type != "SYNCED":
                self._resource = change.object
                self._judge()

    async def _after_deletion(self) -> None:
        self._audience.say(f"{self._name} was deleted: its processes end, then this does")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GONE_SECONDS):
                while self._pods:
                    self._changed.clear()
                    await self._changed.wait()
        self.stop()

    async def _follow_pods(self, client: Client) -> None:
        place = POD.place(self._namespace)
        async for change in client.follow(place, labels=f"{OWNER}={self._name}"):
            if change.type != "SYNCED":
                self._see_pod(change)

    def _see_pod(self, change: Change) -> None:
        name = change.object["metadata"]["name"]
        if change.type == "DELETED":
            self._pods.pop(name, None)
        else:
            self._pods[name] = change.object
        self._judge()

    def _judge(self) -> None:
        """Something has changed: go on with it, or end everything?"""
        self._changed.set()
        if self._resource is None or self._was_ready:
            return
        self._was_ready = is_ready(self._resource)
        if not self._was_ready:
            self._give_up(hopeless(self._resource, self._pods.values()))

    def _give_up(self, reason: str | None) -> None:
        if reason and not self._end.is_set():
            self._gave_up = reason
            self._end.set()

    def _see_operator(self, name: str) -> None:
        seen = self._operator.observe().get(name)
        if seen is None or self._end.is_set() or seen.restarts == self._operator_restarts:
            return
        self._operator_restarts = seen.restarts
        self._audience.say(f"the operator ended ({seen.error}): it is started again")
        if not self._was_ready and seen.failures >= _HOPELESS_DEATHS:
            self._give_up(f"the operator died {seen.failures} times: {seen.error}")

    async def _look(self, client: Client) -> None:
        while True:
            if self._resource is not None:
                await self._tell_plan(client, self._resource)
                self._audience.show(self._resource)
            await asyncio.sleep(_BETWEEN_SHOWS_SECONDS)
            await self._changed.wait()
            self._changed.clear()

    async def _tell_plan(self, client: Client, resource: Object) -> None:
        plan = (resource.get("status") or {}).get("plan") or {}
        revision = plan.get("revision", "")
        if revision in ("", self._revision):
            return
        place = _REVISION.place(self._namespace, revision_name(self._name, revision))
        with contextlib.suppress(ApiError):  # a newer one has taken its place
            record = await client.get(place)
            self._revision = revision
            self._audience.planned(record["data"])

    async def _stop(self, cluster: EmbeddedCluster) -> None:
        order = asyncio.create_task(cluster.stop(_leaving_order, STOP_SECONDS))
        killed = asyncio.create_task(self._kill.wait())
        await asyncio.wait({order, killed}, return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        order.cancel()  # what is left is killed when the cluster's block is left
        await asyncio.gather(order, killed, return_exceptions=True)
        if not order.cancelled():
            order.result()


def _accelerators() -> dict[str, str]:
    """What a stage may ask for beside processors and memory."""
    count = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return {"nvidia.com/gpu": str(count)}


def _is_stage(pod: Object) -> bool:
    return STAGE in (pod["metadata"].get("labels") or {})


def _leaving_order(pod: Object) -> int:
    """Round in which a pod is stopped: what is no stage first, so that the router drains."""
    return int(pod["metadata"].get("labels", {}).get(STAGE, -1)) + 1
