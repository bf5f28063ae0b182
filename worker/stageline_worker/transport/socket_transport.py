"""Links over TCP and Unix sockets: listens, greets those who call, dials."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from weakref import WeakSet

from stageline_wire import Frame, FrameError, Kind, encode
from stageline_wire.credentials import Credentials, peer_roles
from stageline_worker.transport.backlog import Backlog, size
from stageline_worker.transport.dialing import tune
from stageline_worker.transport.places import socket_port, split, unix_name
from stageline_worker.transport.reading import FrameReader
from stageline_worker.transport.seam import Accept, LinkRefused, Refusals
from stageline_worker.transport.socket_inlet import SocketInlet
from stageline_worker.transport.socket_outlet import SocketOutlet
from stageline_worker.transport.wire import (
    READABLE,
    PlainWire,
    TlsWire,
    WaitOver,
    Waker,
    Wire,
    handshake,
    wait,
)

MOST_STRANGERS: Final = 32
_MOST_OF_HELLO = 64 << 10
_BACKLOG = 64
_PAUSE = 0.05


class SocketTransport:
    """Links over sockets. Whoever calls has `hello` seconds to say who it is."""

    name = "socket"

    def __init__(
        self,
        accept: Accept,
        refusals: Refusals,
        credentials: Credentials | None = None,
        hello: float = 5.0,
    ) -> None:
        self._accept = accept
        self._refusals = refusals
        self._credentials = credentials
        self._hello = hello
        self._waker = Waker()
        self._listening: list[socket.socket] = []
        self._thread: threading.Thread | None = None
        self._strangers = threading.Semaphore(MOST_STRANGERS)
        self._inlets: WeakSet[SocketInlet] = WeakSet()

    def listen(self, address: str) -> None:
        """Beside the gRPC server at `address`; OSError: the port is another's, or there is none."""
        host, port = split(address)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = found[0]
        try:
            tcp = _bound(family, (place[0], socket_port(port), *place[2:]))
            self._listening.append(tcp)
            self._listening.append(_bound(socket.AF_UNIX, unix_name(str(place[0]), port)))
        except OSError:
            self._close_listening()
            raise
        self._thread = threading.Thread(target=self._greet_all, name="links", daemon=True)
        self._thread.start()

    def dial(self, address: str, hello: Frame, on_broken: Callable[[str], None]) -> SocketOutlet:
        return SocketOutlet(address, hello, on_broken, self._credentials)

    def try_dial(
        self, address: str, hello: Frame, on_broken: Callable[[str], None]
    ) -> SocketOutlet:
        """Like `dial`, but once: LinkUnreached when nobody is there to answer."""
        return SocketOutlet(address, hello, on_broken, self._credentials, patient=False)

    def stop(self) -> None:
        """Hang up on everyone. May be called twice, or without `listen`."""
        self._waker.wake()
        if self._thread is not None:
            self._thread.join()
        self._close_listening()
        for inlet in list(self._inlets):
            inlet.hang_up()

    def _close_listening(self) -> None:
        while self._listening:
            self._listening.pop().close()

    def _greet_all(self) -> None:
        poll = select.poll()
        poll.register(self._waker.fileno(), select.POLLIN)
        for listening in self._listening:
            poll.register(listening.fileno(), select.POLLIN)
        with suppress(WaitOver):
            while True:
                ready = dict(poll.poll())
                if self._waker.fileno() in ready:
                    return
                for listening in self._listening:
                    if listening.fileno() in ready:
                        self._let_in(listening)

    def _let_in(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:  # it has hung up already, or this process may open no more files
            self._waker.sleep(_PAUSE)
            return
        if not self._strangers.acquire(blocking=False):
            self._refusals.add(f"{MOST_STRANGERS} links wait to be greeted already")
            connection.close()
            return
        greet = threading.Thread(target=self._greet, args=(connection,), name="greet", daemon=True)
        greet.start()

    def _greet(self, connection: socket.socket) -> None:
        deadline = time.monotonic() + self._hello
        try:
            self._welcome(self._wired(connection, deadline), deadline)
        except (OSError, EOFError, WaitOver) as error:
            self._refusals.add(f"a link broke before HELLO: {error or 'it was closed'}")
        finally:
            self._strangers.release()

    def _wired(self, connection: socket.socket, deadline: float) -> Wire:
        if self._credentials is None:
            tune(connection)
            return PlainWire(connection)
        connection.setblocking(False)
        secured = self._credentials.ssl_context(server=True).wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
        try:
            tune(secured)
            handshake(secured, self._waker, deadline)
            if "stage" not in peer_roles(secured):
                raise ssl.SSLError("the certificate is not a stage's")
        except BaseException:
            secured.close()
            raise
        return TlsWire(secured)

    def _welcome(self, wire: Wire, deadline: float) -> None:
        frames = FrameReader(wire.read, _MOST_OF_HELLO)
        try:
            hello = self._first(wire, frames, deadline)
        except (FrameError, TimeoutError) as error:
            self._refusals.add(str(error))
            said = encode(Frame(Kind.END, meta={"reason": str(error)}))
            Backlog(wire).write(said, size(said))
            wire.close()
            return
        except BaseException:
            wire.close()
            raise
        inlet = SocketInlet(wire, frames, hello.session, self._refusals)
        try:
            self._accept(hello, inlet)
        except LinkRefused as error:
            self._refusals.add(str(error))
            inlet.close(str(error))
        else:
            self._inlets.add(inlet)
            inlet.welcome()

    def _first(self, wire: Wire, frames: FrameReader, deadline: float) -> Frame:
        while (hello := frames.next()) is None:
            try:
                wait(wire.fileno(), READABLE, self._waker, deadline)
            except TimeoutError:
                raise TimeoutError(f"no HELLO came within {self._hello:g} s") from None
        if hello.kind is not Kind.HELLO:
            raise FrameError(f"a link begins with HELLO, not with {hello.kind.name}")
        return hello


def _bound(family: int, place: object) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(place)  # type: ignore[arg-type]
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening
