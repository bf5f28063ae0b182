"""The kubelet: one node whose pods are processes of this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from stageline_local.client import (
    CONFIG_MAP,
    POD,
    SECRET,
    ApiError,
    Change,
    Client,
    Mirror,
    Object,
    key,
)
from stageline_local.kubelet.addresses import Addresses
from stageline_local.kubelet.containers import Place
from stageline_local.kubelet.events import Recorder
from stageline_local.kubelet.node import capacity, cores, register
from stageline_local.kubelet.pods import PodKeeper
from stageline_local.kubelet.sources import Sources
from stageline_local.restarts import RestartPolicy
from stageline_local.runtime import Runtime

NODE_NAME = "local"
_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5


class Kubelet:
    """Runs what the API server says is on its node. `run` is its life; no process outlives it.

    `folder` takes the pods' volumes and logs. `resources` adds to what the machine has,
    `computes` says which pods share its cores. The restart policy's times stand in for
    Kubernetes' own, which are made for machines that nobody waits for.
    """

    def __init__(
        self,
        client: Client,
        folder: Path,
        *,
        resources: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        restart: RestartPolicy | None = None,
        computes: Callable[[Object], bool] = lambda pod: True,
    ) -> None:
        self.client = client
        self.restart = restart or RestartPolicy()
        self.runtime = Runtime(self._on_process)
        self.addresses = Addresses()
        self.events = Recorder(client, "kubelet")
        self._folder = folder.absolute()
        self._resources = capacity(resources or {})
        self._labels = labels or {}
        self._computes = computes
        self._pods = Mirror(client, POD, fields=f"spec.nodeName={NODE_NAME}")
        self._config_maps = Mirror(client, CONFIG_MAP)
        self._secrets = Mirror(client, SECRET)
        self.sources = Sources(self._config_maps.objects, self._secrets.objects)
        self._keepers: dict[str, PodKeeper] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    async def run(self) -> None:
        """Until cancelled; then every process is killed at once (`stop_all` first asks them)."""
        pods = self._folder / "pods"
        shutil.rmtree(pods, ignore_errors=True)  # of a kubelet that was killed
        try:
            await self._run()
        finally:
            shutil.rmtree(pods, ignore_errors=True)

    async def _run(self) -> None:
        async with self.runtime, asyncio.TaskGroup() as tasks:
            await self._register()
            tasks.create_task(self.events.run())
            for mirror in (self._config_maps, self._secrets):
                tasks.create_task(mirror.run(self._on_source))
            await self._config_maps.synced.wait()
            await self._secrets.synced.wait()
            try:
                await self._pods.run(lambda change: self._on_pod(change, tasks))
            finally:
                self._stopping = True

    async def stop_all(self, order: Callable[[Object], int], seconds: float) -> None:
        """End all pods in rounds, lowest `order` first; what is left after `seconds` is killed.

        No pod is started, and none leaves the API server: it is the end of the whole cluster.
        """
        self._stopping = True
        rounds: defaultdict[int, list[PodKeeper]] = defaultdict(list)
        for keeper in self._keepers.values():
            rounds[order(keeper.pod)].append(keeper)
        try:
            async with asyncio.timeout(seconds):
                for number in sorted(rounds):
                    await asyncio.gather(*(keeper.stop() for keeper in rounds[number]))
        except TimeoutError:
            _log.warning("some pods did not end within %g s and are killed", seconds)
        self.runtime.kill()

    def log_path(
        self, namespace: str, pod: str, container: str = "", previous: bool = False
    ) -> Path | None:
        """Log of a container (of the only one when none is named), None while there is none."""
        for keeper in self._keepers.values():
            if key(keeper.pod) == (namespace, pod):
                names = [c["name"] for c in keeper.pod["spec"]["containers"]]
                path = keeper.place.log(container or names[0], previous=previous)
                return path if path.exists() else None
        return None

    def variables(self, pod: Object) -> Mapping[str, str]:
        """Unbuffered output, and an equal share of the cores unless the user chose a number."""
        found = {"PYTHONUNBUFFERED": "1"}
        if "OMP_NUM_THREADS" not in os.environ:
            sharers = [other for other in self._alive() if self._computes(other)]
            found["OMP_NUM_THREADS"] = str(max(1, cores() // max(1, len(sharers))))
        return found

    def keep(self) -> None:
        """Let the runtime have the processes of all pods."""
        if not self._stopping:
            keepers = self._keepers.values()
            self.runtime.keep(spec for keeper in keepers for spec in keeper.specs.values())

    async def _register(self) -> None:
        while True:
            try:
                now = datetime.now(UTC)
                return await register(self.client, NODE_NAME, self._labels, self._resources, now)
            except ApiError as error:
                _log.info("node=%s not registered: %s", NODE_NAME, error)
                await asyncio.sleep(_RETRY_SECONDS)

    def _alive(self) -> Iterator[Object]:
        for pod in self._pods.objects.values():
            over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if not over and not pod["metadata"].get("deletionTimestamp"):
                yield pod

    def _on_pod(self, change: Change, tasks: asyncio.TaskGroup) -> None:
        if change.type == "SYNCED" or self._stopping:
            return
        pod, uid = change.object, change.object["metadata"]["uid"]
        keeper = self._keepers.get(uid)
        if change.type == "DELETED":
            if keeper:
                self._drop(keeper, uid)
        elif keeper:
            keeper.update(pod)
        else:
            self._adopt(pod, uid, tasks)

    def _adopt(self, pod: Object, uid: str, tasks: asyncio.TaskGroup) -> None:
        namespace, name = key(pod)
        place = Place(self._folder / "pods" / uid, self._folder / "logs" / namespace / name)
        keeper = self._keepers[uid] = PodKeeper(pod, place, self)
        self._lives[uid] = tasks.create_task(keeper.run(), name=f"pod {namespace}/{name}")
        _log.info("pod=%s/%s came", namespace, name)

    def _drop(self, keeper: PodKeeper, uid: str) -> None:
        """It is gone from the API server: so are its processes, at once."""
        _log.info("pod=%s/%s is gone", *key(keeper.pod))
        self._lives.pop(uid).cancel()
        del self._keepers[uid]
        keeper.specs.clear()
        if names := [name for name in self.runtime.observe() if name.startswith(f"{uid}/")]:
            self.runtime.kill(*names)
        keeper.forget()
        self.events.forget(keeper.pod)

    def _on_source(self, change: Change) -> None:
        for keeper in self._keepers.values():
            keeper.wake()

    def _on_process(self, name: str) -> None:
        uid, _, container = name.partition("/")
        keeper, seen = self._keepers.get(uid), self.runtime.observe().get(name)
        if keeper and seen:
            keeper.see(container, seen)
