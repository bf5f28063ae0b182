"""One gRPC stream over plain HTTP/2, and no more of either than the stream needs.

A client in Python that uses gRPC burns as much for each message as the server that it measures, on
the cores that it shares with it. This one takes a third of that: it reads whatever the socket has
in one go, as compiled clients do. It believes the server: what is not data is looked at no further.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_STREAM: Final = 1
_INITIAL_WINDOW: Final = 4
_ALL: Final = (1 << 31) - 1
_PREFIX = struct.Struct(">BI")


class BareStream:
    """A call of `path` at `address`, HOST:PORT, on a connection of its own."""

    def __init__(self, address: str, path: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        headers = (
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", address),
            ("te", "trailers"), ("content-type", "application/grpc"),
        )  # fmt: skip
        self._socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW, _ALL))
            + _frame(_WINDOW, 0, 0, struct.pack(">I", _ALL - 65535))
            + _frame(_HEADERS, _END_HEADERS, _STREAM, b"".join(_literal(*h) for h in headers))
        )

    def send(self, message: bytes) -> None:
        """The server's first window of 64 KiB must hold all that is sent."""
        data = _PREFIX.pack(0, len(message)) + message
        self._socket.sendall(_frame(_DATA, 0, _STREAM, data))

    def done_sending(self) -> None:
        """Nothing more is sent."""
        self._socket.sendall(_frame(_DATA, _END_STREAM, _STREAM, b""))

    def messages(self) -> Iterator[bytes]:
        """Until the server ends the stream; ConnectionError when it breaks."""
        data = b""
        for part in self._data():
            data += part
            at = 0
            while len(data) - at >= _PREFIX.size:
                end = at + _PREFIX.size + _PREFIX.unpack_from(data, at)[1]
                if end > len(data):
                    break
                yield data[at + _PREFIX.size : end]
                at = end
            data = data[at:]

    def close(self) -> None:
        self._socket.close()

    def _data(self) -> Iterator[bytes]:
        for kind, flags, payload in self._frames():
            if kind == _DATA:
                yield payload
            elif kind == _SETTINGS and not flags & _ACK:
                self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                self._socket.sendall(_frame(_PING, _ACK, 0, payload))
            elif kind in (_RESET, _GOAWAY):
                raise ConnectionError(f"the server broke the stream: {payload!r}")
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                return

    def _frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Kind, flags and payload."""
        held = b""
        while received := self._socket.recv(1 << 18):
            held += received
            at = 0
            while len(held) - at >= 9:
                end = at + 9 + int.from_bytes(held[at : at + 3], "big")
                if end > len(held):
                    break
                yield held[at + 3], held[at + 4], held[at + 9 : end]
                at = end
            held = held[at:]
        raise ConnectionError("the server hung up")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header that neither end remembers."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))
