"""How fast the operator answers: from a change in an API server until it has done its part.

The API server is the embedded cluster's (stageline_local), so that none is needed; the operator is
the real one, as a process of its own. One resource at a time, with no nodes: how long a pod takes
to start is not the operator's affair. Only the end of each profile pod is played.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from access import Server, connected
from fakeworker import ended, profile
from report import Line, show
from watched import operating, stop

from stageline_local.apiserver import served
from stageline_local.client import POD, SERVICE, Client, Kind, Mirror, Object

DEPLOYED: Final = Kind("stageline.dev/v1alpha1", "PipelineDeployment", "pipelinedeployments")
NAMESPACE: Final = "default"
MOST_MILLISECONDS: Final = 500
_STAGES: Final = 4
_PATIENCE_SECONDS: Final = 10.0
_COMPONENT: Final = "app.kubernetes.io/component"


@dataclass(slots=True)
class Seconds:
    """What was measured, a figure for each resource."""

    seen: list[float] = field(default_factory=list)
    planned: list[float] = field(default_factory=list)
    scaled: list[float] = field(default_factory=list)
    brought_back: list[float] = field(default_factory=list)


class World:
    """What the API server has, as soon as it has it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._changed = asyncio.Event()
        self._mirrors = {kind: Mirror(client, kind) for kind in (DEPLOYED, POD, SERVICE)}

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as following:
            for mirror in self._mirrors.values():
                following.create_task(mirror.run(lambda change: self._changed.set()))

    def get(self, kind: Kind, name: str) -> Object | None:
        """The object, if it is there."""
        return self._mirrors[kind].objects.get((NAMESPACE, name))

    def pods(self, name: str, component: str) -> list[Object]:
        """Of a resource."""
        return [
            pod
            for (_, called), pod in self._mirrors[POD].objects.items()
            if called.startswith(f"{name}-") and pod["metadata"]["labels"][_COMPONENT] == component
        ]

    async def timed(self, change: Awaitable[object], done: Callable[[], bool], what: str) -> float:
        """Seconds from before the change until it is done."""
        began = time.monotonic()
        await change
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise SystemExit(f"{what}: not within {_PATIENCE_SECONDS:g} s") from None
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer resources, for CI")
    number = 10 if parser.parse_args().quick else 50
    with served() as api, tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        with operating(["--server", api.url], Path(folder) / "log") as operator:
            start = time.monotonic() - began
            seconds = asyncio.run(play(Server(api.url), number))
            end = stop(operator.process)
    print(f"{number} PipelineDeployments of {_STAGES} stages, one after the other")
    show(
        *_lines("made: seen, profile pod there, status written", seconds.seen),
        *_lines("profiled: planned, all children there", seconds.planned),
        *_lines("scaled up: pods of the new pipeline there", seconds.scaled),
        *_lines("Service deleted: there again", seconds.brought_back),
        Line("operator: from its start until it is ready", start, "s"),
        Line("operator: from SIGTERM to its end", end, "s", 1.0),
    )


def _lines(what: str, seconds: list[float]) -> tuple[Line, Line]:
    return (
        Line(f"{what}, median", 1000 * statistics.median(seconds), "ms"),
        Line(f"{what}, longest", 1000 * max(seconds), "ms", MOST_MILLISECONDS),
    )


async def play(server: Server, number: int) -> Seconds:
    """The life of each resource, in four steps."""
    seconds = Seconds()
    async with connected(server) as client:
        world = World(client)
        following = asyncio.create_task(world.run())
        for each in range(number):
            await live(world, f"llama-{each}", seconds)
        following.cancel()
        await asyncio.wait({following})
    return seconds


async def live(world: World, name: str, seconds: Seconds) -> None:
    """One resource from its making to its end."""
    client, place = world.client, DEPLOYED.place(NAMESPACE, name)

    def profiling() -> bool:
        return bool(world.pods(name, "profile")) and _is_told(world, name, "Ready", "Unknown")

    def planned() -> bool:
        stages = world.pods(name, "stage")
        return len(stages) == _STAGES and _is_told(world, name, "Planned", "True")

    def scaled() -> bool:
        stages = world.pods(name, "stage")
        return len(stages) == 2 * _STAGES and _generation_told(world, name) == 2

    made = client.create(DEPLOYED.place(NAMESPACE), resource(name))
    seconds.seen.append(await world.timed(made, profiling, f"{name} is seen"))
    (pod,) = world.pods(name, "profile")
    end = client.merge_patch(POD.of(pod), ended(profile(24)), subresource="status")
    seconds.planned.append(await world.timed(end, planned, f"{name} is planned"))
    more = client.merge_patch(place, {"spec": {"replicas": 2}})
    seconds.scaled.append(await world.timed(more, scaled, f"{name} is scaled"))
    service = world.get(SERVICE, name)
    assert service is not None, f"{name} has no Service"
    gone = client.delete(SERVICE.of(service), uid=service["metadata"]["uid"])
    seconds.brought_back.append(
        await world.timed(gone, lambda: _is_another(world, service), f"Service {name} is back")
    )
    await client.delete(place)


def resource(name: str) -> Object:
    """One PipelineDeployment."""
    spec = {"model": {"uri": "hf://example/llama@main"}, "pipeline": {"stages": _STAGES}}
    return {
        "apiVersion": DEPLOYED.api_version,
        "kind": DEPLOYED.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**spec, "rollout": {"maxSurge": 1}},
    }


def _status(world: World, name: str) -> Object:
    return (world.get(DEPLOYED, name) or {}).get("status") or {}


def _is_told(world: World, name: str, kind: str, truth: str) -> bool:
    conditions = _status(world, name).get("conditions") or ()
    return any((one["type"], one["status"]) == (kind, truth) for one in conditions)


def _generation_told(world: World, name: str) -> int:
    return int(_status(world, name).get("observedGeneration", 0))


def _is_another(world: World, old: Object) -> bool:
    now = world.get(SERVICE, old["metadata"]["name"])
    return now is not None and now["metadata"]["uid"] != old["metadata"]["uid"]


if __name__ == "__main__":
    main()
