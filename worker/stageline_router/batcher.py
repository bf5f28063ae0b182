"""Dynamic batching: requests wait a moment for each other, then go as microbatches.

What to join is decided in `batches`; here are the clock, the pipelines and the waiting clients.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

from stageline_router.batches import Batch, Batches, Part
from stageline_router.errors import Broken, Invalid, Refusal
from stageline_router.leader import Leader
from stageline_router.pipelines import Pipelines, Wait
from stageline_router.rows import Rows, cut_rows, join_rows
from stageline_wire import TensorView
from stageline_wire.logs import log

Answer = tuple[TensorView, ...]
_BUG = "the router failed on this microbatch, which is a bug in Stageline: its log says where"


@dataclass(slots=True)
class _Request:
    rows: Rows
    wait: Wait
    done: asyncio.Future[Answer]
    answers: dict[int, Answer] = field(default_factory=dict)  # by first row
    answered: int = 0  # rows

    def take(self, part: Part, answer: Answer) -> None:
        self.answers[part.first] = answer
        self.answered += part.rows
        if self.answered == self.rows.count and not self.done.done():
            self.done.set_result(join_rows([self.answers[first] for first in sorted(self.answers)]))

    def fail(self, refusal: Refusal) -> None:
        if not self.done.done():
            self.done.set_exception(refusal)


class Batcher:
    """Joins the rows of requests into microbatches of at most `max_rows`.

    `max_delay` in seconds is the time that a request may wait for others.
    """

    def __init__(self, pipelines: Pipelines, max_rows: int, max_delay: float) -> None:
        self._pipelines = pipelines
        self._batches = Batches(max_rows, max_delay)
        self._requests: dict[int, _Request] = {}
        self._ids = itertools.count()
        self._running: dict[asyncio.Task[None], Batch] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def infer(self, rows: Rows, wait: Wait) -> Answer:
        """The outputs, rows in order. `wait`: how long it may wait for a ready pipeline.

        Raises Refusal. Cancelling gives the place free, and stops what only this request needs.
        """
        request = next(self._ids)
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._requests[request] = _Request(rows, wait, done)
        self._send(self._batches.add(rows.key, request, rows.count, time.monotonic()))
        try:
            return await done
        finally:
            del self._requests[request]
            self._batches.discard(request)
            self._stop_unwanted()

    def _send(self, batches: list[Batch]) -> None:
        for batch in batches:
            task = asyncio.create_task(self._run(batch))
            self._running[task] = batch
            task.add_done_callback(self._running.pop)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (due := self._batches.next_due()) is not None:
            delay = max(0.0, due - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._send(self._batches.expire(time.monotonic()))

    def _stop_unwanted(self) -> None:
        for task, batch in self._running.items():
            if not any(part.request in self._requests for part in batch.parts):
                task.cancel()

    async def _run(self, batch: Batch) -> None:
        parts = [part for part in batch.parts if part.request in self._requests]
        if not parts:
            return
        try:
            await self._ask(parts)
        except (Invalid, Broken) as refusal:
            # One bad request must not harm those it met here: each gets a try of its own.
            if len(parts) == 1:
                self._fail(parts[0], refusal)
            else:
                await asyncio.gather(*(self._alone(part) for part in parts))
        except Refusal as refusal:
            for part in parts:
                self._fail(part, refusal)
        except Exception as error:  # nobody awaits this task: its clients would wait for ever
            log("microbatch_failed", rows=batch.rows, error=repr(error))
            for part in parts:
                self._fail(part, Broken(_BUG))

    async def _alone(self, part: Part) -> None:
        if part.request not in self._requests:
            return
        try:
            await self._ask([part])
        except Refusal as refusal:
            self._fail(part, refusal)

    async def _ask(self, parts: list[Part]) -> None:
        waiting = [self._requests[part.request] for part in parts]
        cuts = [r.rows.cut(p.first, p.end) for r, p in zip(waiting, parts, strict=True)]
        first, *others = cuts
        rows = sum(part.rows for part in parts)
        tensors = first.join(others)

        async def ask(leader: Leader) -> Answer:
            answer = await leader.infer(tensors, first.outputs)
            if any(tensor.shape[:1] != (rows,) for tensor in answer):
                raise Broken(f"{leader.name} did not answer {rows} rows with as many")
            return answer

        answer = await self._pipelines.serve(ask, lambda: max(r.wait() for r in waiting))
        row = 0
        for part in parts:
            if (request := self._requests.get(part.request)) is not None:
                request.take(part, cut_rows(answer, row, row + part.rows))
            row += part.rows

    def _fail(self, part: Part, refusal: Refusal) -> None:
        if (request := self._requests.get(part.request)) is not None:
            request.fail(refusal)
