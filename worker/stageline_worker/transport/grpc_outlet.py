"""The sending end of a gRPC link: one bidirectional stream of raw frames.

The caller's thread only queues; gRPC's own writer thread joins and sends, so that compute of the
next microbatch and sending of this one overlap. A reader thread takes credits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import grpc

from stageline_wire import Frame, FrameError, Kind, decode, encode
from stageline_wire.credentials import Credentials
from stageline_wire.frame import Buffer
from stageline_worker.channel import open_channel
from stageline_worker.transport.backlog import size
from stageline_worker.transport.credits import Credits, granted, price
from stageline_worker.transport.seam import LinkError

METHOD = "/stageline.v1.Relay/Link"
_HOPS = 32


class GrpcOutlet:
    """See `stageline_worker.transport.seam.Outlet`."""

    def __init__(
        self,
        address: str,
        hello: Frame,
        on_broken: Callable[[str], None],
        credentials: Credentials | None = None,
    ) -> None:
        self.transport, self.note = "grpc", ""
        self._address = address
        self._on_broken = on_broken
        self._credits = Credits()
        self._answered = threading.Event()
        self._is_welcome = False
        self._over = threading.Event()
        self._acknowledged = False
        self._reason = ""
        self._sent: dict[int, float] = {}
        self._hops: deque[float] = deque(maxlen=_HOPS)
        self._outgoing: SimpleQueue[list[Buffer] | None] = SimpleQueue()
        self._channel = open_channel(address, credentials)
        stream: Any = self._channel.stream_stream(METHOD)
        self._call = stream(self._messages(), wait_for_ready=True)
        threading.Thread(target=self._read, name=f"outlet-{address}", daemon=True).start()
        self._outgoing.put(encode(hello))

    @property
    def hop_seconds(self) -> float:
        return min(self._hops.copy(), default=0.0)

    def connect(self, timeout: float) -> None:
        in_time = self._answered.wait(timeout)
        if not self._is_welcome:
            self.close()
            late = f"{self._address} did not answer within {timeout:g} s"
            raise LinkError(self._reason if in_time else late)

    def send(self, frame: Frame) -> None:
        buffers = encode(frame)
        self._credits.take(price(size(buffers)))
        self._sent[frame.sequence] = time.monotonic()
        self._outgoing.put(buffers)

    def finish(self, timeout: float) -> bool:
        self._outgoing.put(encode(Frame(Kind.END)))
        self._over.wait(timeout)
        return self._acknowledged

    def close(self) -> None:
        self._credits.break_off("it was closed here")
        self._over.set()
        self._outgoing.put(None)
        self._call.cancel()
        self._channel.close()

    def _messages(self) -> Iterator[bytes]:
        while (buffers := self._outgoing.get()) is not None:
            yield b"".join(buffers)

    def _read(self) -> None:
        reason = "the other end closed it"
        try:
            for message in self._call:
                self._take(decode(message))
        except grpc.RpcError as error:
            reason = _details(error)
        except FrameError as error:
            reason = str(error)
        self._outgoing.put(None)
        if not self._is_welcome:
            self._reason = reason
            self._answered.set()
        is_news = self._credits.break_off(reason) and self._is_welcome and not self._acknowledged
        self._over.set()
        if is_news:
            self._on_broken(reason)

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.WELCOME:
                self._credits.give(granted(frame))
                self._is_welcome = True
                self._answered.set()
            case Kind.CREDIT:
                self._measure(frame)
                self._credits.give(granted(frame))
            case Kind.END:
                self._acknowledged = True
                self._over.set()
                self._outgoing.put(None)
            case _:
                raise FrameError(f"a {frame.kind.name} frame came against the link's direction")

    def _measure(self, credit: Frame) -> None:
        now = time.monotonic()
        held = credit.meta.get("held", 0.0)
        sent = self._sent.get(credit.sequence)
        for sequence in [known for known in list(self._sent) if known <= credit.sequence]:
            del self._sent[sequence]
        if sent is not None and isinstance(held, (int, float)):
            self._hops.append(max(0.0, now - sent - held))


def _details(error: grpc.RpcError) -> str:
    details = error.details() if isinstance(error, grpc.Call) else None
    return details or "the connection broke"
