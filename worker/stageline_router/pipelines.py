"""All pipelines of the model: which one takes a request, and how long it may wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from stageline.v1 import pipeline_pb2 as pb
from stageline_api.documents import PipelineAddress
from stageline_router.dial import Dial
from stageline_router.errors import Elsewhere, Exhausted, Unavailable, Unread
from stageline_router.leader import Leader

_T = TypeVar("_T")

Wait = Callable[[], float]
"""How many seconds the client still leaves for a pipeline to become ready."""

HOLD = 30.0  # seconds that a request is held while no pipeline is ready
_MOST_LOST = 3
_LONGEST_PAUSE = 1.0  # seconds


class Pipelines:
    """`changed` is called when readiness may differ."""

    def __init__(self, model: str, changed: Callable[[], None], dial: Dial) -> None:
        self._model = model
        self._dial = dial
        self._leaders: dict[PipelineAddress, Leader] = {}
        self._changed = changed
        self._news = asyncio.Event()
        self._holding = True
        self._leaving: set[asyncio.Task[None]] = set()

    async def update(self, addresses: Sequence[PipelineAddress]) -> None:
        """Send to exactly these; one that goes finishes what it has."""
        for address in addresses:
            if address not in self._leaders:
                dial = partial(self._dial.open, address.leader, tls=address.tls)
                leader = Leader(address.name, address.leader, self._tell, dial)
                self._leaders[address] = leader
                leader.start()
        for address in set(self._leaders) - set(addresses):
            leaving = asyncio.create_task(self._leaders.pop(address).leave())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._tell()

    async def stop(self) -> None:
        """Hang up on all; what is still asked ends with a sentence."""
        await asyncio.gather(*(leader.stop() for leader in self._leaders.values()))
        leaving = list(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

    @property
    def ready(self) -> bool:
        """Whether a request would be answered now."""
        return any(leader.ready for leader in self._leaders.values())

    @property
    def sequence_slots(self) -> int:
        """Texts that all ready pipelines together make at once."""
        ready = (leader for leader in self._leaders.values() if leader.ready)
        return sum(leader.report.sequence_slots for leader in ready)

    async def pick(self, seconds: float = HOLD) -> Leader:
        """The ready pipeline with the least in flight. Raises Unavailable after `seconds`."""
        found: Leader | None = await self._wait(self._least_busy, seconds)
        if found is None:
            raise Unavailable(f"{self._model} is not ready: {self._why()}")
        return found

    async def serve(
        self,
        ask: Callable[[Leader], Awaitable[_T]],
        wait: Wait,
        progress: Callable[[], int] = lambda: 0,
    ) -> _T:
        """What the first pipeline that comes to its end with it makes of it.

        `ask` is asked again, of another pipeline or of the same one in its next life, when its
        leader is lost or gives it back; `progress` counts what it has kept from those before.
        Raises Refusal: Unavailable when none takes it within HOLD, or when it lost three leaders in
        a row, since it may be what ends them.
        """
        clock = asyncio.get_running_loop().time
        held, lost, asked = 0.0, 0, False
        while True:
            began, before = clock(), progress()
            leader = await self.pick(min(wait(), HOLD - held))
            held += clock() - began
            try:
                return await ask(leader)
            except Elsewhere:
                pass
            except Unavailable as error:
                lost = lost + 1 if progress() == before else 1
                if lost == _MOST_LOST:
                    raise Unavailable(
                        f"this request lost {lost} leaders in a row and is not tried again; the "
                        f"last: {error}"
                    ) from None
            except Unread:
                raise
            except Exhausted as error:
                if not asked or wait() <= 0 or held >= HOLD:
                    raise
                # It was accepted before: a full pipeline is now something to wait for.
                pause = min(error.retry_after, wait(), _LONGEST_PAUSE)
                await asyncio.sleep(pause)
                held += pause
            asked = True
            if progress() != before:
                held = 0.0

    async def info(self, seconds: float = HOLD) -> pb.ModelInfo:
        """What the model takes and gives. Raises Unavailable after `seconds`."""
        found: pb.ModelInfo | None = await self._wait(self._known, seconds)
        if found is None:
            raise Unavailable(f"nothing is known of {self._model} yet: {self._why()}")
        return found

    def hold_no_more(self) -> None:
        """What waits for a pipeline ends now, and what comes does not wait."""
        self._holding = False
        self._tell()

    async def _wait(self, look: Callable[[], _T | None], seconds: float) -> _T | None:
        found = look()
        try:
            async with asyncio.timeout(seconds):
                while found is None and self._holding:
                    await self._news.wait()
                    found = look()
        except TimeoutError:
            return None
        return found

    def _least_busy(self) -> Leader | None:
        ready = [leader for leader in self._leaders.values() if leader.ready]
        return min(ready, key=lambda leader: leader.in_flight, default=None)

    def _known(self) -> pb.ModelInfo | None:
        infos = (leader.info for leader in self._leaders.values())
        return next((info for info in infos if info is not None), None)

    def _why(self) -> str:
        if not self._holding:
            return "this router is stopping"
        if not self._leaders:
            return "it has no pipeline"
        return "; ".join(leader.why_not_ready for leader in self._leaders.values())

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
        self._changed()
