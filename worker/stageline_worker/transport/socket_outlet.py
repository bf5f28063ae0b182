"""The sending end of a socket link.

The caller's thread writes small frames at once, without waiting. What the kernel does not take goes
to the link's own thread, and so do large frames: copying one takes as long as several wake-ups, and
goes beside the next compute where that leaves a core free. The link's thread dials, then sleeps
until the other end hangs up. It reads credits only now and then, to measure the hop in time: the
caller reads them when it has used up its own.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from stageline_wire import Frame, FrameError, Kind, encode
from stageline_wire.credentials import Credentials
from stageline_wire.frame import Buffer
from stageline_worker.transport.backlog import Backlog, size
from stageline_worker.transport.credits import granted, price
from stageline_worker.transport.dialing import connect
from stageline_worker.transport.reading import FrameReader
from stageline_worker.transport.seam import LinkError, LinkUnreached
from stageline_worker.transport.wire import HUNG_UP, READABLE, WRITABLE, WaitOver, Waker, Wire, wait

_HOPS = 32
_BETWEEN_SAMPLES = 1.0
_BETWEEN_DIALS = 0.1
_CLOSED = "it was closed here"
MOST_OF_A_REPLY: Final = 64 << 10
AT_ONCE: Final = 512 << 10


class SocketOutlet:
    """See `stageline_worker.transport.seam.Outlet`.

    A patient one dials again and again until it is closed; another fails at once when the stage
    cannot be reached.
    """

    def __init__(
        self,
        address: str,
        hello: Frame,
        on_broken: Callable[[str], None],
        credentials: Credentials | None = None,
        *,
        patient: bool = True,
    ) -> None:
        self.transport = "socket"
        self.note = ""
        self._address = address
        self._on_broken = on_broken
        self._credentials = credentials
        self._patient = patient
        self._waker = Waker()
        self._wire: Wire | None = None
        self._backlog: Backlog
        self._replies: FrameReader
        self._answered, self._over = threading.Event(), threading.Event()
        self._is_welcome = self._acknowledged = self._closed = False
        self._broken: LinkError | None = None
        self._granted = self._used = 0  # credits
        self._starves = False
        self._sent: deque[tuple[int, float]] = deque()
        self._hops: deque[float] = deque(maxlen=_HOPS)
        self._wants_sample = False
        self._next_sample = 0.0
        self._sending = threading.Lock()  # held while credits are waited for
        self._reading, self._breaking = threading.Lock(), threading.Lock()
        name = f"outlet-{address}"
        threading.Thread(target=self._run, args=(hello,), name=name, daemon=True).start()

    @property
    def hop_seconds(self) -> float:
        return min(self._hops.copy(), default=0.0)

    def connect(self, timeout: float) -> None:
        in_time = self._answered.wait(timeout)
        if not self._is_welcome:
            error = self._broken if in_time else None
            self.close()
            late = f"{self._address} did not answer within {timeout:g} s"
            raise error or LinkUnreached(late)

    def send(self, frame: Frame) -> None:
        buffers = encode(frame)
        length = size(buffers)
        with self._sending:
            needed = self._used + price(length)
            if self._granted < needed or self._broken is not None:
                self._await_credits(needed)
            self._used = needed
            now = time.monotonic()
            self._sent.append((frame.sequence, now))
            self._write(buffers, length)
        if now >= self._next_sample and not self._wants_sample:
            self._wants_sample = True
            self._waker.wake()

    def finish(self, timeout: float) -> bool:
        if not self._is_welcome:  # there may not even be a wire yet
            return False
        try:
            self._say(Frame(Kind.END))
        except LinkError:
            return self._acknowledged
        self._wants_sample = True
        self._waker.wake()
        self._over.wait(timeout)
        return self._acknowledged

    def close(self) -> None:
        self._closed = True
        self._break_off(LinkError(_CLOSED))
        self._waker.wake()

    def _await_credits(self, needed: int) -> None:
        has_waited = False
        while self._broken is not None or self._granted < needed:
            if self._broken is not None:
                raise LinkError(str(self._broken))
            self._starves = True
            if not self._read(timely=has_waited, starves=True) and self._granted < needed:
                self._await_reply()
                has_waited = True
        if self._starves:
            self._starves = False
            if self._wants_sample:  # for which the link's thread has not listened meanwhile
                self._waker.wake()

    def _await_reply(self) -> None:
        assert self._wire is not None, "a link carries frames only after connect"
        poll = select.poll()
        poll.register(self._wire.fileno(), READABLE)
        poll.poll()

    def _read(self, *, timely: bool, starves: bool = False) -> bool:
        """Take what the other end said; False when it has said nothing."""
        with self._reading:
            # Who starves sleeps until there is something to read, so must be the one to find it.
            if self._broken is not None or (self._starves and not starves):
                return self._broken is not None
            try:
                frame = self._replies.next()
                if frame is not None:
                    self._take(frame, timely=timely)
                return frame is not None
            except EOFError:
                self._break_off(LinkError("the other end closed it"))
            except OSError:
                self._break_off(LinkError("the connection broke"))
            except FrameError as error:
                self._break_off(LinkError(str(error)))
        return True

    def _take(self, frame: Frame, *, timely: bool) -> None:
        match frame.kind:
            case Kind.CREDIT:
                self._granted += granted(frame)
                self._measure(frame, timely=timely)
            case Kind.END:
                self._acknowledged = "reason" not in frame.meta
                self._break_off(LinkError(str(frame.meta.get("reason", "it has ended"))))
            case _:
                raise FrameError(f"a {frame.kind.name} frame came against the link's direction")

    def _measure(self, credit: Frame, *, timely: bool) -> None:
        now = time.monotonic()
        sequence, sent = -1, 0.0
        while self._sent and sequence != credit.sequence:
            sequence, sent = self._sent.popleft()
        held = credit.meta.get("held")
        if timely and sequence == credit.sequence and isinstance(held, (int, float)):
            self._hops.append(max(0.0, now - sent - held))
            self._next_sample = now + _BETWEEN_SAMPLES
            self._wants_sample = False

    def _say(self, frame: Frame) -> None:
        buffers = encode(frame)
        self._write(buffers, size(buffers))

    def _write(self, frame: list[Buffer], length: int) -> None:
        if self._broken is None:
            try:
                if self._backlog.write(frame, length, AT_ONCE):
                    self._waker.wake()
            except OSError:
                pass
            else:
                return
        # What the other end said before it hung up is the reason.
        while self._broken is None:
            self._read(timely=False)
        raise LinkError(str(self._broken))

    def _break_off(self, error: LinkError) -> None:
        """The first reason stays."""
        with self._breaking:
            self._broken = self._broken or error
        if self._wire is not None:
            self._wire.shutdown()

    def _run(self, hello: Frame) -> None:
        try:
            wire = self._reach()
            self._greet(wire, hello)
            self._attend(wire)
        except LinkError as error:
            self._break_off(error)
        except WaitOver:
            self._break_off(LinkError(_CLOSED))
        except (OSError, EOFError, FrameError) as error:
            why = getattr(error, "strerror", None) or str(error) or "it hung up before WELCOME"
            self._break_off(LinkUnreached(f"no socket link to {self._address}: {why}"))
        self._leave()

    def _reach(self) -> Wire:
        while True:
            try:
                wire, self.transport = connect(self._address, self._credentials, self._waker)
            except OSError:
                if not self._patient:
                    raise
                self._waker.sleep(_BETWEEN_DIALS)
            else:
                return wire

    def _greet(self, wire: Wire, hello: Frame) -> None:
        self._replies = FrameReader(wire.read, MOST_OF_A_REPLY)
        self._backlog = Backlog(wire)
        self._wire = wire
        self._say(hello)
        while (frame := self._replies.next()) is None:
            wait(wire.fileno(), READABLE, self._waker, None)
        if frame.kind is Kind.END:
            raise LinkError(str(frame.meta.get("reason", "it was refused")))
        if frame.kind is not Kind.WELCOME:
            raise FrameError(f"a {frame.kind.name} frame came in place of WELCOME")
        self._granted = granted(frame)
        self._is_welcome = True
        self._answered.set()

    def _attend(self, wire: Wire) -> None:
        """Until the link breaks."""
        poll = select.poll()
        poll.register(self._waker.fileno(), select.POLLIN)
        while self._broken is None:
            sample = select.POLLIN if self._wants_sample and not self._starves else 0
            write = WRITABLE if self._backlog.waits else 0
            poll.register(wire.fileno(), HUNG_UP | sample | write)
            ready = dict(poll.poll())
            if self._waker.fileno() in ready:
                self._waker.clear()
            happened = ready.get(wire.fileno(), 0)
            if happened & WRITABLE:
                with suppress(OSError):  # reading tells why
                    self._backlog.flush()
            if happened & ~WRITABLE:
                self._read(timely=True)

    def _leave(self) -> None:
        self._answered.set()
        self._over.set()
        with self._sending, self._reading:
            if self._wire is not None:
                self._backlog.close()
        self._waker.close()
        if self._is_welcome and not self._closed and not self._acknowledged:
            self._on_broken(str(self._broken))
