"""Writes of a link: at once what the kernel takes, later what it does not."""

from __future__ import annotations

from collections import deque

from stageline_wire.frame import Buffer
from stageline_worker.transport.reading import padded
from stageline_worker.transport.wire import Wire


class Backlog:
    """Keeps the order of frames. Its callers take turns."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._waiting: deque[list[Buffer]] = deque()

    @property
    def waits(self) -> bool:
        """Whether something is to be flushed as soon as the wire takes more."""
        return bool(self._waiting)

    def write(self, frame: list[Buffer]) -> bool:
        """An encoded frame; True when some of it must wait. Raises OSError."""
        length = sum(map(len, frame))
        frame.append(bytes(padded(length) - length))
        if not self._waiting:
            count = self._wire.write(frame)
            if count == padded(length):
                return False
            frame = after(frame, count)
        self._waiting.append(frame)
        return True

    def flush(self) -> None:
        """What the wire takes now. Raises OSError."""
        while self._waiting:
            rest = after(self._waiting[0], self._wire.write(self._waiting[0]))
            if rest:
                self._waiting[0] = rest
                return
            self._waiting.popleft()


def after(buffers: list[Buffer], count: int) -> list[Buffer]:
    """What is left of `buffers` when `count` bytes are gone."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [memoryview(buffer)[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []
