"""What a hop is to the ring, whatever carries it.

A link has one direction: the dialing stage holds its `Outlet`, the accepting stage its `Inlet`.
Frames arrive whole and in order. Only so much as there are credits for is sent and not yet
received, so a slow stage holds its predecessor back instead of filling memory. A link ends with
END and its acknowledgement; one that ends otherwise is broken, and both ends learn it as a
`LinkError`.

A transport calls `Accept` for each link that comes in; it may block for a moment, and refuses by
raising `LinkRefused`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from stageline_wire import Frame


class LinkError(Exception):
    """The link is broken or was refused; the message is a sentence without its end's name."""


class LinkEnded(LinkError):
    """The other end said END, and all it sent was received."""


class LinkUnreached(LinkError):
    """Nobody answered at the other end."""


class LinkRefused(LinkError):
    """The accepting end does not want this link."""


class Outlet(Protocol):
    """The sending end. It is being dialed until `connect` has returned."""

    @property
    def transport(self) -> str:
        """What carries the frames: grpc, socket (TCP) or unix. Certain after `connect`."""
        ...

    @property
    def note(self) -> str:
        """Why it is not a faster one, a sentence; empty when there is nothing to say."""
        ...

    @property
    def hop_seconds(self) -> float:
        """From send to the credit's return, less the time the frame was held.

        The smallest of the last ones: others also tell how long a thread waited for a core.
        """
        ...

    def connect(self, timeout: float) -> None:
        """Wait until the link is welcome.

        Raises LinkError: not reached within `timeout` seconds, refused, or closed meanwhile.
        """
        ...

    def send(self, frame: Frame) -> None:
        """Queue a frame, waiting for credits. Its tensors must not change afterwards.

        Raises LinkError when the link is broken or gets closed while this waits.
        """
        ...

    def finish(self, timeout: float) -> bool:
        """Say END; True when the other end has received everything."""
        ...

    def close(self) -> None:
        """Drop the link without a word to `on_broken`. May be called twice, from any thread."""
        ...


class Inlet(Protocol):
    """The receiving end."""

    def receive(self, timeout: float | None = None) -> Frame | None:
        """Next frame; None after `timeout` seconds or when `wake` was called.

        Raises LinkEnded after END, LinkError when the link is broken or closed.
        """
        ...

    def wake(self) -> None:
        """Let `receive` return, now or at its next call. From any thread."""
        ...

    def close(self, reason: str) -> None:
        """Drop the link. May be called twice, from any thread."""
        ...


class Transport(Protocol):
    """Makes links."""

    @property
    def name(self) -> str: ...

    def dial(self, address: str, hello: Frame, on_broken: Callable[[str], None]) -> Outlet:
        """Begin to open a link.

        `on_broken` is called once, from a thread of the transport, when a link that was welcome
        breaks.
        """
        ...


Accept = Callable[[Frame, Inlet], None]


class Refusals:
    """Counts frames that were refused: truncated, of another session, absurd."""

    def __init__(self, on_refusal: Callable[[str], None] = lambda reason: None) -> None:
        self._lock = threading.Lock()
        self._on_refusal = on_refusal
        self.count = 0

    def add(self, reason: str) -> None:
        with self._lock:
            self.count += 1
        self._on_refusal(reason)
