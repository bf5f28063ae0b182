"""/healthz, /readyz and /metrics: the answers, and the small server that gives them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

LONGEST_RECONCILE_SECONDS: Final = 300.0
LONGEST_SILENCE_SECONDS: Final = 120.0

Complaints = Callable[[], list[str]]
"""What is wrong, each a sentence; nothing when all is well."""


def complaints(
    workers_alive: bool,
    longest_reconcile: float,
    silent: tuple[str, float] | None,
    ended: Sequence[str] = (),
) -> list[str]:
    """What only a restart of the operator can mend.

    `silent` is the kind whose watch has failed to tell what we know by other ways, and for how
    many seconds; `ended` are tasks that should go on as long as the operator does. That all is
    quiet is no complaint.
    """
    found = []
    if not workers_alive:
        found.append("a reconcile worker has ended")
    if longest_reconcile > LONGEST_RECONCILE_SECONDS:
        found.append(f"one reconcile has taken {longest_reconcile:.0f} s")
    if silent is not None and silent[1] > LONGEST_SILENCE_SECONDS:
        found.append(f"the watch of {silent[0]} has been silent for {silent[1]:.0f} s though it "
                     "had news to tell")  # fmt: skip
    return found + [f"what keeps the {name} has ended" for name in ended]


@contextlib.asynccontextmanager
async def serving(
    host: str, port: int, healthy: Complaints, ready: Complaints, metrics: Callable[[], bytes]
) -> AsyncIterator[int]:
    """Answer on the port until the block ends; gives the port. OSError when it is in use.

    The server runs in the operator's own loop: a loop that is stuck does not answer either.
    """

    async def give_metrics(request: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/healthz", _answering(healthy))
    app.router.add_get("/readyz", _answering(ready))
    app.router.add_get("/metrics", give_metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _answering(complain: Complaints) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        found = complain()
        return web.Response(text="\n".join(found or ["ok"]) + "\n", status=503 if found else 200)

    return answer
