"""What waits for the client of one stream to read it.

Responses are made in the leader's pace and taken in the client's. What a request may have waiting
is bounded; a client that does not read loses that request, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from stageline_router.errors import Unread

_MOST_MESSAGES = 1024
_MOST_BYTES = 256 << 10
_FULL = 64  # messages; above that, no new request is taken off the stream


class Sender:
    """The messages of one request. `send` never waits."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self.messages = 0
        self.bytes = 0

    def send(self, message: bytes) -> None:
        """Raises Unread when too much of this request waits already."""
        if self.messages >= _MOST_MESSAGES or self.bytes > _MOST_BYTES:
            raise Unread(
                f"{self.messages} responses of {self.bytes >> 10} KiB wait to be read by their "
                "client, and it reads too slowly or not at all: this request ends, read faster or "
                "ask for less at once"
            )
        self._put(message)

    def last(self, message: bytes) -> None:
        """Say that the request has ended, whatever waits."""
        self._put(message)

    def _put(self, message: bytes) -> None:
        self.messages += 1
        self.bytes += len(message)
        self._outgoing.put(self, message)


class Outgoing:
    """The messages of one stream, of all its requests, in order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Sender, bytes]] = deque()
        self._closed = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, sender: Sender, message: bytes) -> None:
        """Append; Sender has seen to it that it may."""
        self._waiting.append((sender, message))
        self._news.set()
        if len(self._waiting) >= _FULL:
            self._room.clear()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._news.set()

    async def room(self) -> None:
        """Return when the client has read so much that it may ask for more."""
        await self._room.wait()

    async def next(self) -> bytes | None:
        """The next message; None after the last one."""
        while not self._waiting:
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()
        sender, message = self._waiting.popleft()
        sender.messages -= 1
        sender.bytes -= len(message)
        if len(self._waiting) < _FULL:
            self._room.set()
        return message
