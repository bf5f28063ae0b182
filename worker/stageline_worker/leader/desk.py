"""Between routers, the scheduler and the ring: who asked for what, and what came of it.

Three kinds of threads meet here under one lock: those of router streams (`submit`, `cancel`,
`leave`), the ring's (`next`, `returned`) and the coordinator's (`admit`, `close`, `expire`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from stageline_wire import Frame, FrameError, Kind
from stageline_wire.logs import log
from stageline_worker.leader.drain_rate import DrainRate
from stageline_worker.leader.draws import read_logprobs, read_tokens
from stageline_worker.leader.outbox import Outbox, Said
from stageline_worker.leader.requests import BadRequest, Id, generation, inference, request_id
from stageline_worker.leader.scheduler import Scheduler
from stageline_worker.leader.sequences import LOSSES
from stageline_worker.leader.work import Generation, Inference, QueueFull, Step
from stageline_worker.microbatch import Microbatch, ModelInfo
from stageline_worker.ring.deadlines import Deadlines
from stageline_worker.timing import Timing

OnCanary = Callable[[str | None], None]
"""Told that the canary is back: None, or the sentence of the stage that failed on it."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much work a leader holds."""

    waiting: int = 0
    running: int = 0
    sequences: int = 0


@dataclass(slots=True)
class _Work:
    outbox: Outbox
    id: Id
    since: float
    microbatch: Microbatch | None  # of an inference
    logprobs: int | None  # of a generation


@dataclass(frozen=True, slots=True)
class Entry:
    """A microbatch for stage 0 and its number in the session.

    `idle`: until now the ring had nothing to do.
    """

    sequence: int
    microbatch: Microbatch
    idle: bool


class Desk:
    """The leader's work. `wake` lets the ring's thread look for more."""

    def __init__(self, name: str, timing: Timing, wake: Callable[[], None]) -> None:
        self._name = name
        self._timing = timing
        self._wake = wake
        self._lock = threading.Lock()
        self._deadlines = Deadlines(floor=timing.hop_floor, factor=timing.hop_factor)
        self._scheduler: Scheduler | None = None
        self._info: ModelInfo | None = None
        self._works: dict[int, _Work] = {}
        self._keys: dict[tuple[Outbox, Id], int] = {}
        self._steps: dict[int, Step] = {}
        self._counter = 0
        self._session = 0
        self._admitted = False
        self._idle_since = time.monotonic()
        self._canary: Microbatch | None = None
        self._on_canary: OnCanary = lambda error: None
        self._draining = False
        self._idle = True  # the ring has nothing to do
        self._unsaid: dict[Outbox, list[Said]] = {}
        self._sent = False  # a microbatch has entered since tokens became unsaid
        self._rate = DrainRate()

    # Router streams

    def submit(self, frame: Frame, outbox: Outbox) -> None:
        """Take an INFER or GENERATE, or answer it with a FAILURE.

        Raises BadRequest when the frame has no id.
        """
        request = request_id(frame)
        try:
            self._accept(frame, request, outbox)
        except BadRequest as error:
            outbox.failure(request, "INVALID_ARGUMENT", str(error))
        except QueueFull:
            self._refuse(request, outbox)
        except ConnectionError as error:
            outbox.failure(request, "UNAVAILABLE", str(error), elsewhere=True)
        else:
            self._wake()

    def cancel(self, ids: Sequence[Id], outbox: Outbox) -> None:
        """Forget these requests: their slots and places are free at once."""
        with self._lock:
            for request in ids:
                if (key := self._keys.get((outbox, request))) is not None:
                    self._forget(key)
        self._wake()

    def leave(self, outbox: Outbox) -> None:
        """The router is gone, and with it all it asked for."""
        with self._lock:
            for key in [key for key, work in self._works.items() if work.outbox is outbox]:
                self._forget(key)
            self._unsaid.pop(outbox, None)
        self._wake()

    # The ring's thread

    def serve(self, info: ModelInfo, scheduler: Scheduler) -> None:
        """The model is loaded: work can be judged."""
        with self._lock:
            self._info, self._scheduler = info, scheduler

    def next(self, session: int) -> Entry | None:
        """The microbatch that enters the ring of this session now, if any.

        The one before is on its way. What came back before that is told to routers only now, as
        the stages need not wait for it.
        """
        with self._lock:
            if self._sent:
                self._say()
            entry = self._next(session)
            if entry is None:
                self._say()
            self._sent = bool(self._unsaid)
            return entry

    def returned(
        self, session: int, sequence: int, result: Microbatch | str, seconds: float
    ) -> None:
        """A microbatch is back: its outputs, or the sentence of the stage that failed on it.

        `seconds` is what its slowest stage took. Raises FrameError when it is none that is out, or
        not what it was sent for.
        """
        with self._lock:
            if session != self._session:
                return
            if sequence not in self._steps or self._scheduler is None:
                raise FrameError(f"a result came for microbatch {sequence}, which is not out")
            step = self._steps.pop(sequence)
            self._deadlines.leave(sequence, time.monotonic())
            if isinstance(result, str):
                self._failed(step, result)
            elif step.keys:
                self._tokens(step, result, seconds)
            else:
                self._answer(step, result, seconds)
        if step.inference is None and not step.keys:
            self._on_canary(result if isinstance(result, str) else None)

    # The coordinator's thread

    def begin(self, session: int, canary: Microbatch, on_canary: OnCanary) -> None:
        """Send a canary round before anything else."""
        with self._lock:
            self._session, self._canary, self._on_canary = session, canary, on_canary
        self._wake()

    def admit(self) -> None:
        """The ring turns: let work in."""
        with self._lock:
            self._admitted = True
        self._wake()

    def close(self, reason: str) -> int:
        """The session is over: what was in the ring waits for the next. How many requests there
        are that had begun."""
        now = time.monotonic()
        with self._lock:
            if self._admitted:
                self._idle_since = now
            self._session, self._admitted, self._canary = 0, False, None
            self._idle = True
            self._say()
            self._steps.clear()
            self._deadlines.clear()
            if self._scheduler is None:
                return 0
            begun = self._scheduler.generating
            for key in self._scheduler.abort():
                message = (
                    f"{reason}; the request ends, because {LOSSES} sessions in a row were lost "
                    "with it in the ring, the last with it alone"
                )
                self._fail(key, "INTERNAL", message)
            return begun

    def expire(self, now: float, reason: str) -> None:
        """Without a ring, work that has waited too long fails with the reason."""
        limit = self._timing.waiting
        with self._lock:
            if self._admitted or now - self._idle_since < limit:
                return
            for key in [key for key, work in self._works.items() if now - work.since > limit]:
                self._fail(key, "UNAVAILABLE", f"{self._name} is not ready: {reason}")

    def overdue(self, now: float) -> tuple[int, int, float] | None:
        """A microbatch past its deadline: session, sequence, its age in seconds."""
        with self._lock:
            found = self._deadlines.overdue(now)
            return (self._session, *found) if found else None

    def drain(self) -> None:
        """Accept nothing more."""
        with self._lock:
            self._draining = True

    def abandon(self, reason: str) -> None:
        """Whatever is left is for another pipeline, or fails with the reason."""
        with self._lock:
            for key in list(self._works):
                self._fail(key, "UNAVAILABLE", reason, elsewhere=True)

    @property
    def load(self) -> Load:
        with self._lock:
            if self._scheduler is None:
                return Load()
            s = self._scheduler
            return Load(s.waiting, s.running, s.generating)

    @property
    def pending(self) -> int:
        """Requests that are not answered."""
        with self._lock:
            return len(self._works)

    # Under the lock

    def _next(self, session: int) -> Entry | None:
        if self._scheduler is None or session != self._session:
            return None
        if self._canary is not None:
            return self._enter_canary(self._scheduler)
        step = self._scheduler.next() if self._admitted else None
        if step is None:
            self._idle = self._idle or not self._scheduler.running
            return None
        return self._enter(step, self._microbatch(step))

    def _accept(self, frame: Frame, request: Id, outbox: Outbox) -> None:
        info, scheduler = self._info, self._scheduler
        if info is None or scheduler is None:
            raise ConnectionError(f"{self._name} is not ready: stage 0 has not loaded its layers")
        work: Inference | Generation
        microbatch = logprobs = None
        with self._lock:
            self._counter += 1
            key = self._counter
        if frame.kind is Kind.INFER:
            microbatch = inference(frame, info)
            work = Inference(key)
        else:
            work = generation(frame, info, key)
            logprobs = work.sampling.logprobs
        with self._lock:
            if self._draining:
                raise ConnectionError(f"{self._name} is draining")
            if (outbox, request) in self._keys:
                raise BadRequest(f"id {request!r} is in use on this stream")
            scheduler.add(work)
            self._works[key] = _Work(outbox, request, time.monotonic(), microbatch, logprobs)
            self._keys[outbox, request] = key

    def _refuse(self, request: Id, outbox: Outbox) -> None:
        with self._lock:
            waiting = self._scheduler.waiting if self._scheduler is not None else 0
            # Half of them: whoever comes again finds room, and the ring has not run dry.
            seconds = round(self._rate.seconds(max(1, waiting // 2), time.monotonic()), 1)
        message = f"{self._name} has as much waiting work as it may; try again in {seconds:g} s"
        outbox.failure(request, "RESOURCE_EXHAUSTED", message, retry_after=seconds)

    def _enter_canary(self, scheduler: Scheduler) -> Entry:
        canary, self._canary = self._canary, None
        assert canary is not None
        return self._enter(scheduler.canary(), canary)

    def _enter(self, step: Step, microbatch: Microbatch) -> Entry:
        self._steps[step.sequence] = step
        self._deadlines.enter(step.sequence, _size(microbatch), time.monotonic())
        idle, self._idle = self._idle, False
        return Entry(step.sequence, microbatch, idle)

    def _microbatch(self, step: Step) -> Microbatch:
        if step.inference is not None:
            microbatch = self._works[step.inference].microbatch
            assert microbatch is not None
            return microbatch
        return Microbatch({"input_ids": torch.tensor(step.tokens)}, step.segments)

    def _tokens(self, step: Step, result: Microbatch, seconds: float) -> None:
        assert self._scheduler is not None
        draws = self._scheduler.expects(step.sequence)
        tokens = read_tokens(result.tensors, draws)
        told = read_logprobs(result.tensors, draws)
        for event in self._scheduler.returned(step.sequence, tokens, seconds):
            work = self._works[event.key]
            said: Said = (work.id, event.token, event.finish)
            if work.logprobs is not None and told:
                said = (*said[:3], told[event.draw])
            self._unsaid.setdefault(work.outbox, []).append(said)
            if event.finish:
                self._drop(event.key)
        if not self._scheduler.running:  # no stage waits for the next microbatch but this one
            self._say()

    def _say(self) -> None:
        """Give routers the tokens that they have not heard of."""
        unsaid, self._unsaid = self._unsaid, {}
        for outbox, said in unsaid.items():
            outbox.tokens(said)

    def _answer(self, step: Step, result: Microbatch, seconds: float) -> None:
        assert self._scheduler is not None
        self._scheduler.returned(step.sequence, [], seconds)
        if step.inference is not None and step.inference in self._works:
            work = self._drop(step.inference)
            work.outbox.answer(work.id, result.tensors)

    def _failed(self, step: Step, message: str) -> None:
        assert self._scheduler is not None
        log("microbatch_failed", sequence=step.sequence, reason=message)
        for key in self._scheduler.failed(step.sequence):
            self._fail(key, "INTERNAL", message)

    def _fail(self, key: int, code: str, message: str, *, elsewhere: bool = False) -> None:
        work = self._forget(key)
        self._say()  # its tokens go before its end
        work.outbox.failure(work.id, code, message, elsewhere=elsewhere)

    def _forget(self, key: int) -> _Work:
        if self._scheduler is not None:
            self._scheduler.cancel(key)
        return self._drop(key)

    def _drop(self, key: int) -> _Work:
        work = self._works.pop(key)
        del self._keys[work.outbox, work.id]
        self._rate.ended(time.monotonic())
        return work


def _size(microbatch: Microbatch) -> int:
    return max(1, *(tensor.numel() for tensor in microbatch.tensors.values()))
