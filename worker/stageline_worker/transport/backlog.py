"""Writes of a link: at once what the kernel takes, later what it does not."""

from __future__ import annotations

import sys
import threading
from collections import deque

from stageline_wire.frame import Buffer
from stageline_worker.transport.reading import padded
from stageline_worker.transport.wire import Wire


class Backlog:
    """Keeps the order of frames: of one thread's, while others flush or add to them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._turn = threading.Lock()
        self._waiting: deque[list[Buffer]] = deque()

    @property
    def waits(self) -> bool:
        """Whether something is to be flushed as soon as the wire takes more."""
        return bool(self._waiting)

    def write(self, frame: list[Buffer], length: int, most: int = sys.maxsize) -> bool:
        """A frame of `length` bytes; True when some must wait, all of it if they are over `most`.

        Raises OSError.
        """
        if (whole := padded(length)) > length:
            frame.append(bytes(whole - length))
        if whole > most or not self._turn.acquire(False):
            self._waiting.append(frame)
            return True
        try:
            if self._waiting:
                self._waiting.append(frame)
                return True
            count = self._wire.write(frame)
            if count == whole:
                return False
            self._waiting.appendleft(after(frame, count))
        finally:
            self._turn.release()
        return True

    def flush(self) -> None:
        """What the wire takes now. Raises OSError."""
        with self._turn:
            while self._waiting:
                rest = after(self._waiting[0], self._wire.write(self._waiting[0]))
                if rest:
                    self._waiting[0] = rest
                    return
                self._waiting.popleft()

    def close(self) -> None:
        """Close the wire, once nobody writes to it."""
        with self._turn:
            self._wire.close()


def size(buffers: list[Buffer]) -> int:
    """Their bytes."""
    return sum(map(len, buffers))


def after(buffers: list[Buffer], count: int) -> list[Buffer]:
    """What is left of `buffers` when `count` bytes are gone."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [memoryview(buffer)[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []
