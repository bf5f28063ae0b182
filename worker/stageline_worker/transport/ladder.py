"""`auto`: the fastest transport that a link allows, found out by each link for itself.

A socket is tried once. Where nobody answers there (the port is blocked, or another's, or the other
end has none), the link is made over gRPC, whose address always answers, and says why. A stage that
answers and refuses is believed: it would refuse the link over gRPC too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from stageline_wire import Frame
from stageline_wire.logs import log
from stageline_worker.transport.grpc_inlet import GrpcTransport
from stageline_worker.transport.seam import LinkError, LinkUnreached, Outlet
from stageline_worker.transport.socket_transport import SocketTransport

_SHARE = 0.5
"""Of the time to connect, for the socket: it is reached sooner, but its stage may be late."""


class Ladder:
    """Makes links over sockets where that goes, over gRPC elsewhere."""

    name = "auto"

    def __init__(self, sockets: SocketTransport, grpc: GrpcTransport) -> None:
        self._sockets = sockets
        self._grpc = grpc

    def dial(self, address: str, hello: Frame, on_broken: Callable[[str], None]) -> Outlet:
        return LadderOutlet(
            address,
            self._sockets.try_dial(address, hello, on_broken),
            lambda: self._grpc.dial(address, hello, on_broken),
        )


class LadderOutlet:
    """An outlet that is one of two."""

    def __init__(self, address: str, first: Outlet, second: Callable[[], Outlet]) -> None:
        self.note = ""
        self._address = address
        self._outlet = first
        self._second = second
        self._changing = threading.Lock()
        self._closed = False
        self.finish, self.send = first.finish, first.send

    @property
    def transport(self) -> str:
        return self._outlet.transport

    @property
    def hop_seconds(self) -> float:
        return self._outlet.hop_seconds

    def connect(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        try:
            self._outlet.connect(timeout * _SHARE)
        except LinkUnreached as error:
            self._fall_back(str(error))
            self._outlet.connect(deadline - time.monotonic())

    def close(self) -> None:
        with self._changing:
            self._closed = True
            self._outlet.close()

    def _fall_back(self, reason: str) -> None:
        with self._changing:
            if self._closed:
                raise LinkError("it was closed here")
            self._outlet = self._second()
            self.finish, self.send = self._outlet.finish, self._outlet.send
        self.note = reason
        log("link_falls_back", address=self._address, to="grpc", reason=reason)
