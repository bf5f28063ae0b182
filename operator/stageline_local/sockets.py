"""The sockets of an HTTP session, and the end of them.

A session that is closed has told its connections to end. One under TLS that was given up a moment
before, with its request, still says goodbye then, and nobody says when it has: a loop that ends
meanwhile leaves a socket open.
"""

from __future__ import annotations

import asyncio
import socket
import weakref

from aiohttp import AddrInfoType

_LOOK_SECONDS = 0.005
_LONGEST_SECONDS = 2.0


class Sockets:
    """Makes them, as a connector's `socket_factory`, and knows which of them are open."""

    def __init__(self) -> None:
        self._made: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def __call__(self, address: AddrInfoType) -> socket.socket:
        """One for this address."""
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        self._made.add(made)
        return made

    async def closed(self) -> None:
        """Return when none is open any more, or when that takes too long."""
        end = asyncio.get_running_loop().time() + _LONGEST_SECONDS
        while any(made.fileno() != -1 for made in self._made):
            if asyncio.get_running_loop().time() > end:
                return
            await asyncio.sleep(_LOOK_SECONDS)
