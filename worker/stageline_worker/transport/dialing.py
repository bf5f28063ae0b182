"""Connects a socket link: over a Unix socket when the stage is on this host, else over TCP."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time

from stageline_wire.credentials import STAGE_NAME, Credentials, peer_roles
from stageline_worker.transport.places import socket_port, split, unix_name
from stageline_worker.transport.wire import (
    WRITABLE,
    PlainWire,
    TlsWire,
    Waker,
    Wire,
    handshake,
    wait,
)

_UNIX_BUFFER = 4 << 20
_ATTEMPT = 1.5  # a SYN that was lost is sent again after 1 s


def connect(
    address: str, credentials: Credentials | None, waker: Waker, seconds: float = _ATTEMPT
) -> tuple[Wire, str]:
    """A wire to the stage whose gRPC server is at `address`, and "unix" or "socket".

    Raises OSError, TimeoutError among them, when it cannot be reached within `seconds`, and
    WaitOver when woken.
    """
    host, port = split(address)
    deadline = time.monotonic() + seconds
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for _, _, _, _, place in found:
        if (near := _unix(unix_name(str(place[0]), port))) is not None:
            return _wired(near, credentials, waker, deadline), "unix"
    family, _, _, _, place = found[0]
    connection = _tcp(family, (place[0], socket_port(port), *place[2:]), waker, deadline)
    return _wired(connection, credentials, waker, deadline), "socket"


def tune(connection: socket.socket) -> None:
    """Options of both ends of a link. TCP's buffers are left to the kernel, which adapts them."""
    if connection.family == socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNIX_BUFFER)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNIX_BUFFER)
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A host that is gone is noticed although nothing is sent, and although something is.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000)


def _unix(name: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        connection.connect(name)
    except OSError:  # nobody has it here
        connection.close()
        return None
    return connection


def _tcp(family: int, place: tuple[object, ...], waker: Waker, deadline: float) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        if connection.connect_ex(place) == errno.EINPROGRESS:
            wait(connection.fileno(), WRITABLE, waker, deadline)
        if code := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
        connection.getpeername()
    except BaseException:
        connection.close()
        raise
    return connection


def _wired(
    connection: socket.socket, credentials: Credentials | None, waker: Waker, deadline: float
) -> Wire:
    tune(connection)
    if credentials is None:
        return PlainWire(connection)
    secured = credentials.ssl_context(server=False).wrap_socket(
        connection, server_hostname=STAGE_NAME, do_handshake_on_connect=False
    )
    try:
        handshake(secured, waker, deadline)
        if "stage" not in peer_roles(secured):
            raise ssl.SSLError("its certificate is not a stage's")
    except BaseException:
        secured.close()
        raise
    return TlsWire(secured)
