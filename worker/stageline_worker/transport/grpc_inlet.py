"""The receiving end of a gRPC link, and the transport that makes both ends.

Each link that comes in has a reader thread, which decodes ahead of the ring's thread, and the
server's own thread, which sends credits back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from stageline_wire import Frame, FrameError, Kind, decode, encode
from stageline_wire.credentials import Credentials
from stageline_worker.transport.credits import WINDOW, Debt, price
from stageline_worker.transport.grpc_outlet import METHOD, GrpcOutlet
from stageline_worker.transport.seam import (
    Accept,
    LinkEnded,
    LinkError,
    LinkRefused,
    Outlet,
    Refusals,
)


class GrpcInlet:
    """See `stageline_worker.transport.seam.Inlet`."""

    def __init__(self, session: int, refusals: Refusals) -> None:
        self._session = session
        self._refusals = refusals
        self._debt = Debt()
        self._arrived: SimpleQueue[tuple[Frame, int, float] | LinkError | None] = SimpleQueue()
        self._replies: SimpleQueue[Frame | None] = SimpleQueue()
        self._error: LinkError | None = None
        self.reason = ""

    def receive(self, timeout: float | None = None) -> Frame | None:
        if self._error:
            raise self._error
        try:
            item = self._arrived.get(timeout=timeout) if timeout != 0 else self._arrived.get(False)
        except Empty:
            return None
        if item is None:
            return None
        if isinstance(item, LinkError):
            self._error = item
            raise item
        frame, cost, since = item
        now = time.monotonic()
        if count := self._debt.taken(cost, now):
            meta = {"credits": count, "held": now - since}
            self._replies.put(Frame(Kind.CREDIT, self._session, frame.sequence, meta))
        return frame

    def wake(self) -> None:
        self._arrived.put(None)

    def close(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._arrived.put(LinkError(reason))
        self._replies.put(None)

    def read(self, messages: Iterator[bytes]) -> None:
        """Take frames off the stream until it ends (the reader thread)."""
        try:
            for message in messages:
                self._take(decode(message), price(len(message)))
            error = LinkError("the other end closed it without END")
        except FrameError as bad:
            self._refusals.add(str(bad))
            error = LinkError(str(bad))
        except LinkError as end:
            error = end
        except grpc.RpcError:
            error = LinkError("the connection broke")
        self._arrived.put(error)
        if not isinstance(error, LinkEnded):
            self.reason = self.reason or str(error)
        self._replies.put(None)

    def replies(self) -> Iterator[bytes]:
        """What goes back to the sender (the server's thread)."""
        yield b"".join(encode(Frame(Kind.WELCOME, self._session, meta={"credits": WINDOW})))
        while (frame := self._replies.get()) is not None:
            yield b"".join(encode(frame))

    def hang_up(self) -> None:
        """The call is over: let both threads go."""
        self._replies.put(None)

    def _take(self, frame: Frame, cost: int) -> None:
        if frame.kind is Kind.END:
            self._replies.put(Frame(Kind.END, self._session))
            raise LinkEnded("the other end said END")
        if frame.kind not in (Kind.MICROBATCH, Kind.RESULT):
            raise FrameError(f"a {frame.kind.name} frame does not belong on a link")
        if frame.session != self._session:
            self._refusals.add(f"a frame of session {frame.session} came in {self._session}")
            return
        self._debt.arrived(cost)
        self._arrived.put((frame, cost, time.monotonic()))


class GrpcTransport:
    """Links over gRPC; always there. Add it to a server as a generic handler to accept."""

    name = "grpc"

    def __init__(
        self, accept: Accept, refusals: Refusals, credentials: Credentials | None = None
    ) -> None:
        self._accept = accept
        self._refusals = refusals
        self._credentials = credentials

    def dial(self, address: str, hello: Frame, on_broken: Callable[[str], None]) -> Outlet:
        return GrpcOutlet(address, hello, on_broken, self._credentials)

    def handler(self) -> grpc.GenericRpcHandler:
        """Serves the Link method of a gRPC server."""
        _, service, method = METHOD.split("/")
        link: Any = grpc.stream_stream_rpc_method_handler(self._link)
        return grpc.method_handlers_generic_handler(service, {method: link})

    def _link(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        inlet = self._welcome(messages, context)
        context.add_callback(inlet.hang_up)
        threading.Thread(target=inlet.read, args=(messages,), name="inlet", daemon=True).start()
        yield from inlet.replies()
        if inlet.reason:
            context.abort(grpc.StatusCode.ABORTED, inlet.reason)

    def _welcome(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> GrpcInlet:
        try:
            hello = decode(next(messages, b""))
            if hello.kind is not Kind.HELLO:
                raise FrameError(f"a link begins with HELLO, not with {hello.kind.name}")
            inlet = GrpcInlet(hello.session, self._refusals)
            self._accept(hello, inlet)
        except (FrameError, LinkRefused) as error:
            self._refusals.add(str(error))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return inlet
