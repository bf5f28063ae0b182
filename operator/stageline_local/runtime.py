"""Keeps a desired set of processes running: told what, it starts, restarts and stops them.

Level-triggered: `keep` takes the whole desired set, at any time, and the runtime makes it so. One
task looks after each process. `stageline up` calls it with the stages and routers of a manifest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from stageline_local.child import Child, Lifeline
from stageline_local.process import Life, Observation, Phase, ProcessSpec
from stageline_local.restarts import after_exit


@dataclass(frozen=True, slots=True)
class Difference:
    """Names to stop and specs to start; a name in both is replaced."""

    stop: frozenset[str]
    start: tuple[ProcessSpec, ...]


def difference(
    current: Mapping[str, ProcessSpec], desired: Mapping[str, ProcessSpec]
) -> Difference:
    """What leads from the current set to the desired one, leaving alone what is the same."""
    changed = {name for name in current if current[name] != desired.get(name)}
    start = (spec for name, spec in desired.items() if current.get(name) != spec)
    return Difference(frozenset(changed), tuple(start))


class Runtime:
    """The processes of one supervisor.

    Use as an async context manager: whatever ends the block, no process is left. `on_change` is
    called with a process's name whenever its observation has changed.
    """

    def __init__(self, on_change: Callable[[str], None] = lambda name: None) -> None:
        self._on_change = on_change
        self._lifeline = Lifeline()
        self._keepers: dict[str, _Keeper] = {}
        self._retired: dict[str, _Keeper] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await self.stop(*self._retired)
        self._lifeline.close()

    def keep(self, specs: Iterable[ProcessSpec]) -> None:
        """Make these the desired processes, and the only ones."""
        desired = {spec.name: spec for spec in specs}
        current = {name: keeper.spec for name, keeper in self._keepers.items()}
        todo = difference(current, desired)
        for name in todo.stop:
            self._retire(name)
        for spec in todo.start:
            self._keepers[spec.name] = _Keeper(
                spec, self._lifeline, self._on_change, self._retired.get(spec.name)
            )

    def observe(self) -> dict[str, Observation]:
        """Every process by name: the desired ones, and those that are not gone yet."""
        keepers = {**self._retired, **self._keepers}
        return {name: keeper.observation for name, keeper in keepers.items()}

    async def stop(self, *names: str, grace_seconds: float | None = None) -> None:
        """Take these out of the desired set and wait until they are gone, SIGKILL at the latest.

        `grace_seconds` takes the place of the specs' own.
        """
        for name in self._keepers.keys() & set(names):
            self._retire(name, grace_seconds)
        tasks = [self._retired[name].task for name in names if name in self._retired]
        if tasks:
            await asyncio.wait(tasks)  # unlike gather: a caller's deadline cancels no keeper

    def restart(self, name: str, grace_seconds: float | None = None) -> None:
        """End this life of a process as `stop` would; what follows is the restart policy's."""
        if keeper := self._keepers.get(name):
            keeper.restart(grace_seconds)

    def kill(self, *names: str) -> None:
        """SIGKILL these processes now, all if none is named. They are not started again."""
        chosen = set(names) or self._keepers.keys() | self._retired.keys()
        for name in self._keepers.keys() & chosen:
            self._retire(name)
        for name in self._retired.keys() & chosen:
            self._retired[name].kill()

    def _retire(self, name: str, grace_seconds: float | None = None) -> None:
        keeper = self._keepers.pop(name)
        self._retired[name] = keeper
        keeper.retire(grace_seconds)
        keeper.task.add_done_callback(lambda _: self._forget(name, keeper))

    def _forget(self, name: str, keeper: _Keeper) -> None:
        if self._retired.get(name) is keeper:
            del self._retired[name]
        self._on_change(name)


class _Keeper:
    """Looks after one process: life after life, until it is retired."""

    def __init__(
        self,
        spec: ProcessSpec,
        lifeline: Lifeline,
        on_change: Callable[[str], None],
        before: _Keeper | None,
    ) -> None:
        self.spec = spec
        self.observation = Observation(spec.name)
        self._lifeline = lifeline
        self._on_change = on_change
        self._before = before
        self._child: Child | None = None
        self._retired = asyncio.Event()
        self._life_over = asyncio.Event()
        self._grace_seconds = spec.grace_seconds
        self._killed = False
        self.task = asyncio.create_task(self._run(), name=f"keep {spec.name}")

    def retire(self, grace_seconds: float | None = None) -> None:
        """Stop the process, start no other."""
        self._retired.set()
        self._end_life(grace_seconds)

    def restart(self, grace_seconds: float | None = None) -> None:
        """Stop the process, as if it had ended by itself."""
        if self._child:
            self._end_life(grace_seconds)

    def _end_life(self, grace_seconds: float | None) -> None:
        self._grace_seconds = self.spec.grace_seconds if grace_seconds is None else grace_seconds
        self._life_over.set()

    def kill(self) -> None:
        """End the process at once, and whatever it replaces."""
        self._killed = True
        if self._before:
            self._before.kill()
        if self._child:
            self._child.kill()

    async def _run(self) -> None:
        if self._before:
            await self._before.task
            self._before = None
        delay: float | None = 0.0
        while delay is not None and not await self._retired_within(delay):
            delay = await self._live()
        self._see(phase=Phase.ENDED, pid=None)

    async def _retired_within(self, seconds: float) -> bool:
        if seconds == 0:
            return self._retired.is_set()
        try:
            await asyncio.wait_for(self._retired.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _live(self) -> float | None:
        """One life. Returns the seconds until the next one, None when there is none."""
        clock = asyncio.get_running_loop().time
        began, started = clock(), datetime.now(UTC)
        exit_code, error = await self._one_life(started)
        over: dict[str, object] = {
            "pid": None,
            "exit_code": exit_code,
            "started": None,
            "last": Life(started, datetime.now(UTC)),
        }
        if self._retired.is_set():
            self._see(**over)
            return None
        seen = self.observation
        then = after_exit(self.spec.restart, seen.failures, clock() - began, exit_code)
        self._see(
            phase=Phase.ENDED if then.delay is None else Phase.WAITING,
            restarts=seen.restarts + (then.delay is not None),
            failures=then.failures,
            error=error,
            delay=then.delay or 0.0,
            **over,
        )
        return then.delay

    async def _one_life(self, started: datetime) -> tuple[int, str]:
        if not self._retired.is_set():
            self._life_over.clear()
        try:
            self._child = await Child.start(
                self.spec, self._lifeline, first=self.observation.restarts == 0
            )
        except (OSError, ValueError) as error:  # no fork, no disk, a null byte: a death at once
            return 127, f"cannot start {self.spec.name}: {error}"
        if self._killed:  # while it was being started
            self._child.kill()
        self._see(phase=Phase.RUNNING, pid=self._child.pid, started=started, delay=0.0)
        try:
            exit_code = await self._until_end(self._child)
            return exit_code, self._child.reason(exit_code)
        finally:
            self._child = None

    async def _until_end(self, child: Child) -> int:
        ended = asyncio.ensure_future(child.wait())
        over = asyncio.ensure_future(self._life_over.wait())
        await asyncio.wait({ended, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if not ended.done():
            self._see(phase=Phase.STOPPING)
            child.terminate()
            await asyncio.wait({ended}, timeout=self._grace_seconds)
            if not ended.done():
                child.kill()
        return await ended

    def _see(self, **changes: object) -> None:
        seen = replace(self.observation, **changes)  # type: ignore[arg-type]
        if seen != self.observation:
            self.observation = seen
            self._on_change(self.spec.name)
