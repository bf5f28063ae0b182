"""A connected stream socket that never blocks, plain or TLS, and what waits for it."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from math import ceil
from typing import Protocol

from stageline_wire.frame import Buffer

READABLE = select.POLLIN | select.POLLRDHUP
WRITABLE = select.POLLOUT
HUNG_UP = select.POLLRDHUP
_MOST_BUFFERS = 1024  # the kernel takes no more at once


class WaitOver(Exception):
    """Somebody woke who waited."""


class Wire(Protocol):
    """Bytes in both directions; one thread may read while another writes."""

    def fileno(self) -> int: ...

    def write(self, buffers: Sequence[Buffer]) -> int:
        """How many bytes were taken, 0 when none can be now. Raises OSError."""
        ...

    def read(self, into: memoryview) -> int | None:
        """How many bytes came: None when none are there yet, 0 at the end. Raises OSError."""
        ...

    def shutdown(self) -> None:
        """Both directions end, whoever polls the socket is let go. From any thread."""
        ...

    def close(self) -> None:
        """Only when no thread uses it any more."""
        ...


class PlainWire:
    """See `Wire`."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self.fileno = connection.fileno
        self._send, self._receive = connection.sendmsg, connection.recv_into

    def write(self, buffers: Sequence[Buffer]) -> int:
        try:
            return self._send(buffers if len(buffers) <= _MOST_BUFFERS else buffers[:_MOST_BUFFERS])
        except BlockingIOError:
            return 0

    def read(self, into: memoryview) -> int | None:
        try:
            return self._receive(into)
        except BlockingIOError:
            return None

    def shutdown(self) -> None:
        _shut_down(self._connection)

    def close(self) -> None:
        self._connection.close()


class TlsWire:
    """See `Wire`. OpenSSL has one state for both directions, so they take turns."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self.fileno = connection.fileno
        self._turn = threading.Lock()

    def write(self, buffers: Sequence[Buffer]) -> int:
        taken = 0
        with self._turn:
            try:
                for buffer in _records(buffers):
                    left = memoryview(buffer)
                    while left:  # it takes a record at a time
                        count = self._connection.send(left)
                        taken += count
                        left = left[count:]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return taken
        return taken

    def read(self, into: memoryview) -> int | None:
        with self._turn:
            try:
                return self._connection.recv_into(into)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None

    def shutdown(self) -> None:
        _shut_down(self._connection)

    def close(self) -> None:
        self._connection.close()


class Waker:
    """Lets go a thread that waits in `wait` or in a poll of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False

    def fileno(self) -> int:
        return self._fd

    def wake(self) -> None:
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Forget the calls of `wake` until now."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return

    def sleep(self, seconds: float) -> None:
        """Raises WaitOver when woken."""
        if select.select([self._fd], [], [], seconds)[0]:
            raise WaitOver("woken")

    def close(self) -> None:
        """No `wake` has an effect from now on."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)

    def __del__(self) -> None:
        self.close()


def milliseconds(seconds: float | None) -> int | None:
    """What `poll` takes."""
    return None if seconds is None else max(0, ceil(1000 * seconds))


def wait(fd: int, events: int, waker: Waker, deadline: float | None) -> None:
    """Until one of `events`. Raises TimeoutError at the deadline, WaitOver when woken."""
    poll = select.poll()
    poll.register(waker.fileno(), select.POLLIN)
    poll.register(fd, events)
    left = None if deadline is None else deadline - time.monotonic()
    ready = [found for found, _ in poll.poll(milliseconds(left))]
    if waker.fileno() in ready:
        raise WaitOver("woken")
    if not ready:
        raise TimeoutError("it took too long")


def handshake(connection: ssl.SSLSocket, waker: Waker, deadline: float | None) -> None:
    """TLS's own. Raises ssl.SSLError, and as `wait` does."""
    while True:
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            wait(connection.fileno(), READABLE, waker, deadline)
        except ssl.SSLWantWriteError:
            wait(connection.fileno(), WRITABLE, waker, deadline)
        else:
            return


_SMALL = 16 << 10  # a TLS record carries as much


def _records(buffers: Sequence[Buffer]) -> list[Buffer]:
    """Small buffers joined: each write is a record of its own, with its own cost."""
    found: list[Buffer] = []
    small: list[Buffer] = []
    for buffer in buffers:
        if len(buffer) < _SMALL:
            small.append(buffer)
            continue
        if small:
            found.append(b"".join(small))
            small = []
        found.append(buffer)
    if small:
        found.append(b"".join(small))
    return [buffer for buffer in found if len(buffer)]


def _shut_down(connection: socket.socket) -> None:
    try:
        # Not SSLSocket's own, which would drop the TLS state under another thread's feet.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return  # the other end was quicker
