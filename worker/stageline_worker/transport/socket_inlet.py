"""The receiving end of a socket link.

`receive` reads the socket itself, in the ring's thread: for frames that the kernel's buffer holds
a thread of our own would only add its wake-up. After the first frame that is larger, a reader
thread takes frames off ahead of the ring: or the sender would wait for our compute.
"""

from __future__ import annotations

import select
import threading
import time
from queue import Empty, SimpleQueue

from stageline_wire import Frame, FrameError, Kind, encode
from stageline_worker.transport.backlog import Backlog, size
from stageline_worker.transport.credits import WINDOW, Debt, price
from stageline_worker.transport.reading import FrameReader
from stageline_worker.transport.seam import LinkEnded, LinkError, Refusals
from stageline_worker.transport.wire import READABLE, Waker, Wire, milliseconds

_INLINE = 512 << 10
_MOST = 4 << 30
_CARRIED = (Kind.MICROBATCH, Kind.RESULT)

_Arrival = tuple[Frame, int, float | None]  # its price, and when it came, if that is known


class SocketInlet:
    """See `stageline_worker.transport.seam.Inlet`."""

    def __init__(self, wire: Wire, frames: FrameReader, session: int, refusals: Refusals) -> None:
        frames.most = _MOST
        self._wire = wire
        self._frames = frames
        self._session = session
        self._refusals = refusals
        self._backlog = Backlog(wire)
        self._debt = Debt()
        self._waker = Waker()
        self._poll = select.poll()
        self._poll.register(self._waker.fileno(), select.POLLIN)
        self._poll.register(wire.fileno(), READABLE)
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._error: LinkError | None = None
        self._ahead: SimpleQueue[_Arrival | LinkError | None] | None = None

    def receive(self, timeout: float | None = None) -> Frame | None:
        if self._ahead is not None:
            arrival = self._from(self._ahead, timeout)
        else:
            arrival = self._next(timeout)
            if arrival is not None and self._frames.largest > _INLINE:
                self._read_ahead()
        return None if arrival is None else self._take(*arrival)

    def wake(self) -> None:
        self._waker.wake()

    def close(self, reason: str) -> None:
        self._fail(LinkError(reason))
        with self._reading, self._writing:
            self._wire.close()
        self._waker.close()

    def welcome(self) -> None:
        """Tell the other end that it may send."""
        self._say(Frame(Kind.WELCOME, self._session, meta={"credits": WINDOW}))

    def hang_up(self) -> None:
        """Without a word, as if this process were gone."""
        self._wire.shutdown()

    def _take(self, frame: Frame, cost: int, since: float | None) -> Frame:
        now = time.monotonic()
        if count := self._debt.taken(cost, now):
            # A frame that was here before anybody looked tells nothing of the way it took.
            held = {} if since is None else {"held": now - since}
            meta = {"credits": count, **held}
            self._say(Frame(Kind.CREDIT, self._session, frame.sequence, meta))
        return frame

    def _next(self, timeout: float | None) -> _Arrival | None:
        """None after `timeout` or when woken."""
        deadline = None if timeout is None else time.monotonic() + timeout
        has_waited = self._ahead is not None
        with self._reading:
            while (frame := self._read()) is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                ready = dict(self._poll.poll(milliseconds(left)))
                has_waited = True
                if self._waker.fileno() in ready:
                    self._waker.clear()
                    if self._error is None:
                        return None
            return *frame, time.monotonic() if has_waited else None

    def _read(self) -> tuple[Frame, int] | None:
        """A frame that is here, and its price. Raises LinkError."""
        try:
            while self._error is None and (frame := self._frames.next()) is not None:
                if frame.kind in _CARRIED and frame.session == self._session:
                    self._debt.arrived(cost := price(self._frames.size))
                    return frame, cost
                self._refuse(frame)
        except FrameError as bad:
            self._refusals.add(str(bad))
            self._fail(LinkError(str(bad)))
        except EOFError:
            self._fail(LinkError("the other end closed it without END"))
        except OSError:
            self._fail(LinkError("the connection broke"))
        except LinkError as end:
            self._fail(end)
        if self._error is not None:
            raise self._error
        return None

    def _refuse(self, frame: Frame) -> None:
        if frame.kind is Kind.END:
            self._say(Frame(Kind.END, self._session))
            raise LinkEnded("the other end said END")
        if frame.kind not in _CARRIED:
            raise FrameError(f"a {frame.kind.name} frame does not belong on a link")
        self._refusals.add(f"a frame of session {frame.session} came in {self._session}")

    def _fail(self, error: LinkError) -> None:
        """The first reason stays, and the other end is told it."""
        if self._error is not None:
            return
        self._error = error
        if not isinstance(error, LinkEnded):
            self._say(Frame(Kind.END, self._session, meta={"reason": str(error)}))
        self._wire.shutdown()
        self._waker.wake()

    def _say(self, frame: Frame) -> None:
        with self._writing:
            try:
                said = encode(frame)
                self._backlog.write(said, size(said))
                self._backlog.flush()
            except OSError:
                return  # whoever reads learns it

    def _read_ahead(self) -> None:
        ahead: SimpleQueue[_Arrival | LinkError | None] = SimpleQueue()
        self._ahead = ahead

        def read() -> None:
            try:
                while True:
                    ahead.put(self._next(None))
            except LinkError as error:
                ahead.put(error)

        threading.Thread(target=read, name="inlet", daemon=True).start()

    def _from(
        self, ahead: SimpleQueue[_Arrival | LinkError | None], timeout: float | None
    ) -> _Arrival | None:
        try:
            item = ahead.get(timeout=timeout) if timeout != 0 else ahead.get(False)
        except Empty:
            return None
        if isinstance(item, LinkError):
            ahead.put(item)
            raise item
        return item
