"""The life of one pod: its processes are started, watched, told about in status, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from stageline_local.client import POD, ApiError, Client, Object
from stageline_local.kubelet.addresses import Addresses
from stageline_local.kubelet.checks import checker
from stageline_local.kubelet.containers import (
    Place,
    grace_seconds,
    pod_address,
    process_spec,
    rewriter,
)
from stageline_local.kubelet.events import Recorder
from stageline_local.kubelet.probes import Listener, watch_life
from stageline_local.kubelet.refusals import ConfigError
from stageline_local.kubelet.sources import Sources
from stageline_local.kubelet.status import ContainerView, pod_status
from stageline_local.kubelet.volumes import fill, volume_files, volume_folders
from stageline_local.process import Observation, Phase, ProcessSpec
from stageline_local.restarts import RestartPolicy
from stageline_local.runtime import Runtime

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
_SETTLE_SECONDS = 0.05
"""Pods come in bursts: a moment later each knows with how many it shares the cores."""
_MESSAGE_BYTES = 4096
_FALLBACK_BYTES = 2048


class Host(Protocol):
    """What a pod needs of its kubelet."""

    client: Client
    runtime: Runtime
    addresses: Addresses
    events: Recorder
    sources: Sources
    restart: RestartPolicy

    def variables(self, pod: Object) -> Mapping[str, str]:
        """What this machine adds to the environment of a pod's containers."""

    def keep(self) -> None:
        """The processes of some pod have changed: make the runtime's set anew."""


class PodKeeper:
    """Looks after one pod of this node, from its coming to its end. `run` is its whole life."""

    def __init__(self, pod: Object, place: Place, host: Host) -> None:
        self.pod = pod
        self.place = place
        self.specs: dict[str, ProcessSpec] = {}
        """What is to be kept running, by container."""
        self._host = host
        self._address = pod_address(pod, host.addresses)
        self._came = datetime.now(UTC)
        self._views = {
            container["name"]: ContainerView(container["name"], container.get("image", ""))
            for container in pod["spec"]["containers"]
        }
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._stopped = False
        self._written: Object = {}

    def update(self, pod: Object) -> None:
        """The pod has changed."""
        self.pod = pod
        self._wake.set()

    def wake(self) -> None:
        """Something that it refers to may have changed."""
        self._wake.set()

    def see(self, container: str, process: Observation) -> None:
        """A process has changed."""
        view = self._views[container]
        if process.last and process.last != view.process.last:
            view = replace(view, message=self._last_words(container, process))
        lives = process.phase in (Phase.RUNNING, Phase.STOPPING)
        same = lives and process.pid == view.process.pid
        self._views[container] = replace(
            view,
            process=process,
            started=view.started and same,
            ready=view.ready and same,
        )
        if not same:
            self._stop_probing(container)
            if process.phase is Phase.RUNNING:
                self._start_probing(container)
                self._tell("Started", f"Started container {container}")
        if process.phase is Phase.WAITING and process.delay:
            message = f"Back-off restarting failed container {container}"
            self._tell("BackOff", message, warning=True)
        self._wake.set()

    async def run(self) -> None:
        """Until the pod is gone from the API server, or this is cancelled."""
        try:
            await asyncio.sleep(_SETTLE_SECONDS)
            while not self._leaving():
                self._wake.clear()
                await self._advance()
                await self._wake.wait()
            await self._end()
        finally:
            for container in list(self._probes):
                self._stop_probing(container)
            if self._ending:  # a command that a probe runs is ended and waited for
                await asyncio.wait(self._ending)

    def forget(self) -> None:
        """Remove what it had on disk, but for its logs."""
        shutil.rmtree(self.place.folder, ignore_errors=True)

    async def stop(self, grace: float | None = None) -> None:
        """End the processes, SIGKILL after `grace` seconds (the pod's own if None)."""
        self._stopped = True
        names, self.specs = [spec.name for spec in self.specs.values()], {}
        for container in list(self._probes):
            self._stop_probing(container)
        for name in self._views if names else ():
            self._tell("Killing", f"Stopping container {name}")
        await self._host.runtime.stop(*names, grace_seconds=grace)

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._host.events.tell(self.pod, reason, message, warning=warning)

    def _leaving(self) -> bool:
        return bool(self.pod["metadata"].get("deletionTimestamp"))

    async def _advance(self) -> None:
        refused = ""
        try:
            if not self._stopped:
                self._make_so()
        except ConfigError as error:
            refused = str(error)
        except (KeyError, TypeError, ValueError, OSError) as error:
            # A pod that the API server let in, and makes no sense, must not end the others.
            _log.exception("pod=%s cannot be made", self.pod["metadata"]["name"])
            refused = f"{type(error).__name__}: {error}"
        for name, view in self._views.items():
            if refused and refused != view.refused:
                self._tell("Failed", f"Error: {refused}", warning=True)
            self._views[name] = replace(view, refused=refused)
        await self._write_status()

    def _make_so(self) -> None:
        """Bring the volumes up to date; start the processes when that has not been done."""
        host, pod, place = self._host, self.pod, self.place
        if pod["spec"].get("initContainers"):
            raise ConfigError("a pod that is a process has no init containers")
        folders = volume_folders(pod, place.volumes)
        files = volume_files(pod, host.sources, rewriter(host.addresses, self._address))
        for name, folder in folders.items():
            if folder.is_relative_to(place.volumes):
                folder.mkdir(parents=True, exist_ok=True)
            if name in files:
                fill(folder, files[name])
        if not self.specs:
            self.specs = {c["name"]: self._spec(c, folders) for c in pod["spec"]["containers"]}
            self._prepare_disk()
            host.keep()

    def _spec(self, container: Object, folders: Mapping[str, Path]) -> ProcessSpec:
        host = self._host
        return process_spec(
            self.pod, container, self.place, folders, host.sources, host.addresses,
            host.variables(self.pod), host.restart,
        )  # fmt: skip

    def _prepare_disk(self) -> None:
        self.place.folder.mkdir(parents=True, exist_ok=True)
        for name in self.specs:
            self.place.termination_log(name).write_bytes(b"")
            self.place.log(name, previous=True).unlink(missing_ok=True)

    def _last_words(self, container: str, process: Observation) -> str:
        """The termination message of the life that has just ended; the next one starts empty."""
        file = self.place.termination_log(container)
        message = _tail(file, _MESSAGE_BYTES)
        with contextlib.suppress(OSError):
            file.write_bytes(b"")
        spec = next(c for c in self.pod["spec"]["containers"] if c["name"] == container)
        fallback = spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if message or not fallback or process.exit_code == 0:
            return message
        return _tail(self.place.log(container), _FALLBACK_BYTES) or process.error

    def _start_probing(self, name: str) -> None:
        container = next(c for c in self.pod["spec"]["containers"] if c["name"] == name)
        spec = self.specs.get(name)
        if spec is None:
            return
        check = checker(container, self._address, spec.env, spec.folder)
        listener = Listener(
            started=lambda: self._set(name, started=True),
            ready=lambda ready: self._set(name, ready=ready),
            unhealthy=lambda why: self._restart(name, why),
        )
        self._probes[name] = asyncio.create_task(
            watch_life(container, check, listener), name=f"probe {spec.name}"
        )

    def _stop_probing(self, container: str) -> None:
        if task := self._probes.pop(container, None):
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _set(self, container: str, **changes: bool) -> None:
        view = replace(self._views[container], **changes)  # type: ignore[arg-type]
        if view != self._views[container]:
            self._views[container] = view
            self._wake.set()

    def _restart(self, container: str, why: str) -> None:
        _log.warning("pod=%s container=%s %s", self.pod["metadata"]["name"], container, why)
        self._tell("Unhealthy", f"{why}, will be restarted", warning=True)
        self._host.runtime.restart(self.specs[container].name, grace_seconds(self.pod))

    async def _write_status(self) -> None:
        status = pod_status(
            self._with_written(), self._address, list(self._views.values()), datetime.now(UTC),
            self._came,
        )  # fmt: skip
        if status == self._written:
            return
        body = {"metadata": {"uid": self.pod["metadata"]["uid"]}, "status": status}
        try:
            await self._host.client.merge_patch(POD.of(self.pod), body, subresource="status")
        except ApiError as error:
            _log.info("pod=%s status not written: %s", self.pod["metadata"]["name"], error)
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._wake.set)
            return
        self._written = status

    def _with_written(self) -> Object:
        """The pod, with our conditions as we wrote them, though the watch may be behind."""
        if not self._written:
            return self.pod
        status = self.pod.get("status") or {}
        ours = self._written["conditions"]
        names = {condition["type"] for condition in ours}
        others = [c for c in status.get("conditions") or () if c["type"] not in names]
        return {**self.pod, "status": {**status, "conditions": ours + others}}

    async def _end(self) -> None:
        await self.stop(grace_seconds(self.pod))
        while True:
            try:
                uid = self.pod["metadata"]["uid"]
                await self._host.client.delete(POD.of(self.pod), grace_seconds=0, uid=uid)
                return
            except ApiError as error:
                if error.status == 409:  # another pod has the name already
                    return
                _log.info("pod=%s not deleted: %s", self.pod["metadata"]["name"], error)
                await asyncio.sleep(_RETRY_SECONDS)


def _tail(file: Path, most: int) -> str:
    try:
        content = file.read_bytes()
    except OSError:  # its writer has removed it
        return ""
    return content[-most:].decode(errors="replace").strip()
