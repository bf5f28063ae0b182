"""The embedded cluster: an API server, and what makes its objects come true on this machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import yaml

from stageline_local.apiserver import ApiServer
from stageline_local.client import Client, Object
from stageline_local.controllers import DeploymentController, GarbageCollector, Scheduler
from stageline_local.kubelet import Kubelet
from stageline_local.ports import LOOPBACK
from stageline_local.proxy import HostPort, ServiceProxy
from stageline_local.restarts import RestartPolicy


class EmbeddedCluster:
    """Use as an async context manager: inside it the cluster works, after it no process is left.

    `folder` takes the pods' logs and a kubeconfig. Whether it fails can be learnt from `failed`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        resources: Mapping[str, str] | None = None,
        restart: RestartPolicy | None = None,
        computes: Callable[[Object], bool] = lambda pod: True,
        host_port: HostPort = lambda service, port: None,
    ) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.url = ""
        """Of the API server, once the cluster has been entered."""
        self.api = ApiServer(log_path=self._log_path, own_user_only=sys.platform == "linux")
        self.client: Client
        self.kubelet: Kubelet
        self._port = port
        self._resources = resources
        self._restart = restart
        self._computes = computes
        self._host_port = host_port
        self._parts: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.url = await self.api.start(LOOPBACK, self._port)
        self.kubeconfig.write_text(yaml.safe_dump(kubeconfig(self.url)))
        self.client = await Client(self.url, agent="stageline-local").__aenter__()
        self.kubelet = Kubelet(
            self.client,
            self.folder,
            resources=self._resources,
            restart=self._restart,
            computes=self._computes,
        )
        self._parts = asyncio.create_task(self._run(), name="embedded cluster")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._parts.cancel()
        await asyncio.wait({self._parts})
        await self.client.__aexit__()
        await self.api.stop()
        if kind is None and not self._parts.cancelled():
            self._parts.result()

    async def stop(self, order: Callable[[Object], int], seconds: float = 20.0) -> None:
        """End the pods in rounds, lowest `order` first, before the block is left.

        The operator must have ended before, or it heals what ends here.
        """
        await self.kubelet.stop_all(order, seconds)

    async def failed(self) -> None:
        """Wait until a part of the cluster breaks, and raise what broke it."""
        await asyncio.shield(self._parts)

    async def _run(self) -> None:
        client = self.client
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.kubelet.run(), name="kubelet")
            tasks.create_task(Scheduler(client).run(), name="scheduler")
            tasks.create_task(DeploymentController(client).run(), name="deployments")
            tasks.create_task(GarbageCollector(client).run(), name="garbage collector")
            tasks.create_task(ServiceProxy(client, self._host_port).run(), name="proxy")

    def _log_path(self, namespace: str, pod: str, container: str, previous: bool) -> Path | None:
        return self.kubelet.log_path(namespace, pod, container, previous)


def kubeconfig(url: str, namespace: str = "default") -> Object:
    """A kubeconfig with one context, for a server that lets everybody in."""
    name = "stageline"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": url}}],
        "users": [{"name": name, "user": {"token": "local"}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}
        ],
    }
