"""A model on this machine for as long as a batch needs it: what `up` starts, quietly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from stageline_cli.dialling import Server
from stageline_cli.machine import prepared, refusals
from stageline_cli.manifest_file import load_manifest
from stageline_cli.serving import Serving
from stageline_cli.summary import is_ready
from stageline_cli.up import as_written
from stageline_local.ports import LOOPBACK, free_ports

Object = dict[str, Any]


class _Quiet:
    """An audience that only waits for the model to be ready."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()

    def show(self, resource: Object) -> None:
        """A look at the resource."""
        if is_ready(resource):
            self.ready.set()

    def planned(self, record: Object) -> None:
        """Nobody looks at the plan."""

    def say(self, line: str) -> None:
        """Nobody listens."""


async def while_served(
    file: Path, state_dir: Path, calls: Callable[[Server], Awaitable[None]]
) -> None:
    """Make the calls to the model of this manifest, once it is ready, and stop it after them.

    Failure when it cannot be served.
    """
    with refusals():
        deployment = load_manifest(file)
        (port,) = free_ports(1)
        with prepared(deployment, port, state_dir) as state:
            audience = _Quiet()
            serving = Serving(as_written(deployment), port, state, audience)
            serves = asyncio.create_task(serving.run())
            called = asyncio.create_task(_call(audience, calls, Server(f"{LOOPBACK}:{port}")))
            try:
                await asyncio.wait({serves, called}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not called.done():
                    called.cancel()
                await asyncio.wait({called})
                serving.stop()
                await serves
            await called


async def _call(
    audience: _Quiet, calls: Callable[[Server], Awaitable[None]], server: Server
) -> None:
    await audience.ready.wait()
    await calls(server)
