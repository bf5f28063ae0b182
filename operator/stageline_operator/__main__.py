"""`python -m stageline_operator`: the process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVarTuple, Unpack

# The core's own lines, of every dial that fails, would stand between ours; it reads this when it is
# imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from stageline_operator import handlers, health, logs
from stageline_operator.cluster import KubeCluster
from stageline_operator.connection import NoConnectionError, configuration
from stageline_operator.decide import decide
from stageline_operator.metrics import Metrics
from stageline_operator.operator import Operator
from stageline_operator.settings import OperatorSettings, parse
from stageline_operator.turn import Turn, identity, is_dead

log = logging.getLogger("stageline_operator.main")

_Ts = TypeVarTuple("_Ts")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; 0 then, 1 when it cannot go on."""
    settings = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    logs.configure(settings.log_format, settings.log_level)
    _allow_open_files()
    try:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            return runner.run(run(settings))
    except (NoConnectionError, handlers.NoWatchError, TurnLostError, OSError) as error:
        log.error("%s", error)
        return 1


def _allow_open_files() -> None:
    """A stream per pipeline is a file each, and container runtimes begin with as few as 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class TurnLostError(Exception):
    """Another operator has begun to serve; the text is a sentence."""


class _Loop(asyncio.SelectorEventLoop):
    """In it a signal belongs to whoever asked for it first: kopf would take ours for itself."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: set[int] = set()

    def add_signal_handler(
        self, sig: int, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts
    ) -> None:
        if sig not in self._taken:
            self._taken.add(sig)
            super().add_signal_handler(sig, callback, *args)


async def run(settings: OperatorSettings) -> int:
    """The operator's life, in the running loop."""
    stop = asyncio.Event()
    _stop_on_signals(stop)
    connection = await configuration(settings.connection)
    metrics = Metrics()
    cluster = KubeCluster(connection, metrics.requested)
    turn = Turn(cluster, settings.namespaces, identity(settings.release), is_dead=is_dead)
    operator = Operator(
        cluster,
        decide,
        settings.render,
        namespaces=settings.namespaces,
        workers=settings.workers,
        metrics=metrics,
        conflict=turn.conflict,
    )
    async with contextlib.AsyncExitStack() as at_end:
        at_end.push_async_callback(cluster.close)
        at_end.push_async_callback(turn.release)
        at_end.push_async_callback(operator.stop)
        if settings.health_port:
            await at_end.enter_async_context(_health(settings, operator, turn))
        log.info("serving %s of %s", ", ".join(settings.namespaces) or "all", connection.host)
        if await _finished(turn.wait(), stop):
            keeping = asyncio.create_task(turn.keep(operator.look_at_all), name="turn")
            keeping.add_done_callback(lambda _: stop.set())
            at_end.push_async_callback(_taken_away, keeping)
            if await _finished(operator.start(), stop):
                await handlers.watch(operator, connection, settings.namespaces, stop)
    log.info("stopped")
    return 0


async def _taken_away(keeping: asyncio.Task[str]) -> None:
    """What starts instead of this process stands by. TurnLostError."""
    if keeping.done():
        raise TurnLostError(f"leaving: {keeping.result()}")
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


def _health(
    settings: OperatorSettings, operator: Operator, turn: Turn
) -> contextlib.AbstractAsyncContextManager[int]:
    return health.serving(
        settings.health_host,
        settings.health_port,
        operator.unhealthy,
        lambda: turn.standing_by() or operator.unready(),
        operator.metrics.text,
    )


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _finished(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Whether the work came to its end before `stop`."""
    tasks = [asyncio.create_task(work), asyncio.create_task(stop.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finished = tasks[0].done()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if finished:
        tasks[0].result()
    return finished and not stop.is_set()


if __name__ == "__main__":
    sys.exit(main())
