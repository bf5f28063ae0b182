"""Probes: what they mean (pure), and the loop that runs those of one container's life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from stageline_local.client import Object

EAGER_SECONDS = 0.2
"""Between checks while what is waited for has not come; a failure counts once a period all the
same. Kubernetes asks once a period, which on one machine would be most of a start."""


@dataclass(frozen=True, slots=True)
class Probe:
    """When to ask, and how many answers make a verdict. Seconds throughout."""

    action: Object
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    successes: int = 1
    failures: int = 3

    @classmethod
    def of(cls, spec: Object) -> Probe:
        """Read a pod's probe."""
        return cls(
            action=spec,
            initial_delay=spec.get("initialDelaySeconds") or 0,
            period=spec.get("periodSeconds") or 10,
            timeout=spec.get("timeoutSeconds") or 1,
            successes=spec.get("successThreshold") or 1,
            failures=spec.get("failureThreshold") or 3,
        )


class Verdict:
    """What a probe's answers amount to. `good` is None until there were enough of them."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._run = 0
        self._last: bool | None = None
        self.good: bool | None = None

    def add(self, ok: bool) -> None:
        """Count one answer."""
        self._run = self._run + 1 if ok is self._last else 1
        self._last = ok
        if self._run >= (self._probe.successes if ok else self._probe.failures):
            self.good = ok


Check = Callable[[Probe], Awaitable[str]]
"""Ask once, within the probe's timeout: why it is bad, empty when it is good."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Hears of one life of a container."""

    started: Callable[[], None]
    ready: Callable[[bool], None]
    unhealthy: Callable[[str], None]
    """It is to be ended; says why."""


async def watch_life(container: Object, check: Check, listener: Listener) -> None:
    """Run the probes of a container that was just started, until cancelled or unhealthy."""
    probes = {
        kind: Probe.of(container[f"{kind}Probe"])
        for kind in ("startup", "liveness", "readiness")
        if container.get(f"{kind}Probe")
    }
    if "startup" in probes and not await _has_started(probes["startup"], check, listener):
        return
    listener.started()
    async with asyncio.TaskGroup() as tasks:
        if "liveness" in probes:
            tasks.create_task(_until_bad(probes["liveness"], check, listener))
        if "readiness" in probes:
            tasks.create_task(_tell_ready(probes["readiness"], check, listener))
        else:
            listener.ready(True)


async def _has_started(probe: Probe, check: Check, listener: Listener) -> bool:
    async for good, why in _verdicts(probe, check, eager=True):
        if good is False:
            listener.unhealthy(f"Startup probe failed: {why}")
        if good is not None:
            return good
    return False


async def _until_bad(probe: Probe, check: Check, listener: Listener) -> None:
    async for good, why in _verdicts(probe, check, eager=False):
        if good is False:
            listener.unhealthy(f"Liveness probe failed: {why}")
            return


async def _tell_ready(probe: Probe, check: Check, listener: Listener) -> None:
    async for good, _ in _verdicts(probe, check, eager=True):
        listener.ready(bool(good))


async def _verdicts(
    probe: Probe, check: Check, *, eager: bool
) -> AsyncIterator[tuple[bool | None, str]]:
    clock = asyncio.get_running_loop().time
    verdict = Verdict(probe)
    await asyncio.sleep(probe.initial_delay)
    next_failure = clock()
    while True:
        why = await check(probe)
        if not why:
            verdict.add(True)
        elif clock() >= next_failure:
            verdict.add(False)
            next_failure = clock() + probe.period
        yield verdict.good, why
        waiting = eager and not verdict.good
        await asyncio.sleep(min(probe.period, EAGER_SECONDS) if waiting else probe.period)
