"""Runs the processes of one manifest until it is told to stop, or sees that there is no use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from stageline_local.layout import Layout
from stageline_local.process import Observation, Phase, ProcessSpec
from stageline_local.runtime import Runtime
from stageline_local.view import View, hopeless, loaded_processes, view
from stageline_local.watch import watch_pipeline, watch_router

STOP_SECONDS = 20.0
_BETWEEN_VIEWS_SECONDS = 0.1


class GaveUp(Exception):
    """A process cannot be started; the message is the sentence that says why."""


class Supervisor:
    """One `stageline up`. `show` is called with what there is to see, a few times a second at most.

    `stop` and `kill` may be called at any time, from the event loop.
    """

    def __init__(
        self, layout: Layout, specs: Sequence[ProcessSpec], show: Callable[[View], None]
    ) -> None:
        self._layout = layout
        self._specs = specs
        self._show = show
        self._reports: dict[str, Any] = {}
        self._router_ready = False
        self._seen: dict[str, Observation] = {}
        self._proven: set[str] = set()
        self._changed = asyncio.Event()
        self._end = asyncio.Event()
        self._kill = asyncio.Event()
        self._gave_up: str | None = None
        self._runtime = Runtime(self._judge)

    def stop(self) -> None:
        """End in order: the router drains, then the stages go, first to last."""
        self._end.set()

    def kill(self) -> None:
        """End at once."""
        self._end.set()
        self._kill.set()

    async def run(self) -> None:
        """Return after an end in order or at once; GaveUp when a process cannot be started."""
        async with self._runtime as runtime, asyncio.TaskGroup() as tasks:
            runtime.keep(self._specs)
            helpers = [tasks.create_task(helper) for helper in self._helpers()]
            await self._end.wait()
            await self._stop_in_order()
            for helper in helpers:
                helper.cancel()
        self._show(self._view())
        if self._gave_up:
            raise GaveUp(self._gave_up)

    def _helpers(self) -> list[Coroutine[Any, Any, None]]:
        layout = self._layout
        watchers = [
            watch_pipeline(pipeline.leader, partial(self._hear, pipeline.name))
            for pipeline in layout.pipelines
        ]
        router = watch_router(layout.router.listen, layout.model, self._hear_router)
        return [*watchers, router, self._look()]

    async def _look(self) -> None:
        while True:
            self._show(self._view())
            await asyncio.sleep(_BETWEEN_VIEWS_SECONDS)
            await self._changed.wait()
            self._changed.clear()

    async def _stop_in_order(self) -> None:
        order = asyncio.create_task(self._stop_each())
        killed = asyncio.create_task(self._kill.wait())
        await asyncio.wait(
            {order, killed}, timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        self._runtime.kill()
        killed.cancel()
        await order

    async def _stop_each(self) -> None:
        layout, runtime = self._layout, self._runtime
        await runtime.stop(layout.router_process)
        for stage in range(max((len(p.stages) for p in layout.pipelines), default=0)):
            await runtime.stop(*(pipeline.process(stage) for pipeline in layout.pipelines))

    def _view(self) -> View:
        gone = {name: replace(last, phase=Phase.ENDED) for name, last in self._seen.items()}
        seen = gone | self._runtime.observe()
        return view(
            self._layout, self._reports, seen, self._proven, router_ready=self._router_ready
        )

    def _judge(self, process: str) -> None:
        """A process has changed: go on with it, or end everything?"""
        self._changed.set()
        self._seen |= self._runtime.observe()
        reason = hopeless(self._seen, self._proven)
        if reason and not self._end.is_set():
            self._gave_up = reason
            self._end.set()

    def _hear(self, pipeline: str, report: Any) -> None:
        self._reports[pipeline] = report
        self._proven |= loaded_processes(self._layout, self._reports)
        self._changed.set()

    def _hear_router(self, ready: bool) -> None:
        if ready:
            self._proven.add(self._layout.router_process)
        if ready != self._router_ready:
            self._router_ready = ready
            self._changed.set()
