"""Services as ports of this machine: what connects to one is passed on to a ready pod."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from stageline_local.client import POD, SERVICE, Client, Mirror, Object, key
from stageline_local.ports import LOOPBACK

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 64 << 10
_RETRY_SECONDS = 0.5
_DIAL_SECONDS = 2.0

HostPort = Callable[[Object, int], int | None]
"""From a Service and one of its ports to a port of this machine; None for none."""


@dataclass(frozen=True, slots=True)
class Door:
    """One port of a Service, and its port on this machine."""

    namespace: str
    service: str
    port: int
    host_port: int


def doors(service: Object, host_port: HostPort) -> list[Door]:
    """The doors of a Service; none when it has no selector, or gives its pods' addresses itself."""
    spec = service["spec"]
    if not spec.get("selector") or spec.get("clusterIP") == "None":
        return []
    ports = [port["port"] for port in spec.get("ports") or ()]
    chosen = [(port, host_port(service, port)) for port in ports]
    return [Door(*key(service), port, host) for port, host in chosen if host is not None]


def endpoints(service: Object, port: int, pods: Sequence[Object]) -> list[tuple[str, int]]:
    """Address and port of each ready pod behind a Service's port, in a fixed order."""
    spec = service["spec"]
    target = next(p.get("targetPort", port) for p in spec["ports"] if p["port"] == port)
    found = [
        (pod["status"]["podIP"], _target_port(pod, target))
        for pod in pods
        if pod["metadata"].get("namespace") == service["metadata"].get("namespace")
        and spec["selector"].items() <= (pod["metadata"].get("labels") or {}).items()
        and _takes_calls(pod)
    ]
    return sorted((address, number) for address, number in found if number is not None)


class ServiceProxy:
    """Opens a door wherever `host_port` says so. Who comes while no pod is ready waits a while."""

    def __init__(self, client: Client, host_port: HostPort, *, wait_seconds: float = 5.0) -> None:
        self._host_port = host_port
        self._wait_seconds = wait_seconds
        self._services = Mirror(client, SERVICE)
        self._pods = Mirror(client, POD)
        self._open: dict[Door, asyncio.Server] = {}
        self._turns: dict[Door, int] = {}
        self._callers: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; then every connection is cut."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._services.run(lambda change: self._pulse()))
                tasks.create_task(self._pods.run(lambda change: self._pulse()))
                while True:
                    changed = self._changed
                    await self._reopen()
                    await changed.wait()
        finally:
            for door in list(self._open):
                self._open.pop(door).close()
            for caller in self._callers:
                caller.cancel()
            await asyncio.gather(*self._callers, return_exceptions=True)

    def _pulse(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _reopen(self) -> None:
        services = self._services.objects.values()
        wanted = {door for service in services for door in doors(service, self._host_port)}
        for door in self._open.keys() - wanted:
            self._open.pop(door).close()
        for door in wanted - self._open.keys():
            try:
                self._open[door] = await asyncio.start_server(
                    partial(self._accept, door), LOOPBACK, door.host_port
                )
                _log.info("service=%s port=%d", door.service, door.host_port)
            except OSError as error:
                _log.warning("service=%s no port %d: %s", door.service, door.host_port, error)
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._pulse)

    def _accept(self, door: Door, reader: StreamReader, writer: StreamWriter) -> None:
        caller = asyncio.create_task(self._serve(door, reader, writer))
        self._callers.add(caller)
        caller.add_done_callback(self._callers.discard)
        # However it ends, even before it began: the connection does not outlive its task.
        caller.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, door: Door, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                pod_reader, pod_writer = await self._dial(door)
        except TimeoutError:
            _log.info("service=%s no pod is ready for a caller", door.service)
            return
        try:
            await _both_ways((reader, writer), (pod_reader, pod_writer))
        finally:
            pod_writer.transport.abort()

    async def _dial(self, door: Door) -> tuple[StreamReader, StreamWriter]:
        while True:
            changed = self._changed
            for address, port in self._next_endpoints(door):
                with contextlib.suppress(OSError, TimeoutError):  # it has just died: another
                    async with asyncio.timeout(_DIAL_SECONDS):
                        return await asyncio.open_connection(address, port)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_SECONDS):
                    await changed.wait()

    def _next_endpoints(self, door: Door) -> list[tuple[str, int]]:
        service = self._services.objects.get((door.namespace, door.service))
        if service is None:
            return []
        found = endpoints(service, door.port, list(self._pods.objects.values()))
        turn = self._turns[door] = self._turns.get(door, -1) + 1
        first = turn % len(found) if found else 0
        return found[first:] + found[:first]


async def _both_ways(
    one: tuple[StreamReader, StreamWriter], other: tuple[StreamReader, StreamWriter]
) -> None:
    """Pass bytes on until both sides have said that they are done, or one has broken."""
    with contextlib.suppress(ConnectionError, ExceptionGroup):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pass_on(one[0], other[1]))
            tasks.create_task(_pass_on(other[0], one[1]))


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()  # the other direction goes on


def _takes_calls(pod: Object) -> bool:
    status = pod.get("status") or {}
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in status.get("conditions") or ()
    )
    return ready and bool(status.get("podIP")) and not pod["metadata"].get("deletionTimestamp")


def _target_port(pod: Object, target: int | str) -> int | None:
    if isinstance(target, int):
        return target
    ports = [port for c in pod["spec"]["containers"] for port in c.get("ports") or ()]
    return next((port["containerPort"] for port in ports if port.get("name") == target), None)
