"""Frames out of a stream of bytes, into memory that is used again.

Small frames lie one after another in a block, so that one read may bring several. A large frame
has a block of its own. Either way a frame's tensors are views of the block; a block is used again
when nothing refers to it any more. A frame that says it is larger than any that came gets no more
memory than twice what has come of it, so a lie costs its sender as much as us.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from stageline_wire import HEADER_LENGTH, Frame, FrameError, decode, frame_length

ALIGNMENT = 64
_SMALL = 256 << 10
_FIRST = 4 * _SMALL
_KEPT_BLOCKS = 8
_KEPT_BYTES = 256 << 20
_UNUSED = 3  # references to a block's bytes: the block's own and those of the question


class FrameReader:
    """Puts frames together.

    `read` fills a buffer: the number of bytes, None when none are there yet, 0 at the end.
    """

    def __init__(self, read: Callable[[memoryview], int | None], most: int) -> None:
        self.most = most
        """Bytes that one frame may have."""
        self.largest = 0
        """Bytes of the largest frame that has begun to come."""
        self._read = read
        self._blocks = _Blocks()
        self._block = self._blocks.take(_SMALL)
        self._start = 0
        self._end = 0
        self.size = 0
        """Bytes of the frame that `next` gave last, or of the one that has begun since."""
        self._length = 0  # the same with padding; 0 when none has begun
        self._believed = _FIRST
        self._last = 0

    def next(self) -> Frame | None:
        """The next frame, None when more must come first.

        Raises EOFError at the end, FrameError when this is no frame, and what `read` raises.
        """
        while True:
            came = self._end - self._start
            if not self._length and came >= HEADER_LENGTH:
                self._begin()
            if came >= self._length > 0:
                return self._take()
            count = self._read(self._room())
            if count is None:
                return None
            if count == 0:
                raise EOFError
            self._end += count

    def _begin(self) -> None:
        size = frame_length(self._block.bytes, self._block.offset + self._start)
        if size > self.most:
            raise FrameError(f"a frame says it has {size} bytes, this link takes {self.most}")
        self.size, self._length = size, padded(size)
        self.largest = max(size, self.largest)
        if self._length > _SMALL:
            self._move_to(self._own(self._length, self._believed))

    def _take(self) -> Frame:
        start, length = self._start, self._length
        frame = decode(self._block.view(start, start + self.size))
        self._start = start + length
        if length > self._believed:
            self._believed = length
        self._last, self._length = length, 0
        return frame

    def _room(self) -> memoryview:
        """Where the next bytes go. What follows a large frame is left for a block of its own."""
        length = self._length
        if length > _SMALL:
            if self._end == self._block.size:
                self._move_to(self._own(length, 2 * self._end))
            return self._block.view(self._end, min(length, self._block.size))
        # A frame like the last one should find room, or its beginning would be moved.
        needed = length or (self._last if self._last <= _SMALL and self._start == self._end else 0)
        if self._start + max(needed, HEADER_LENGTH) > self._block.size or self._block.size > _SMALL:
            self._move_to(self._blocks.take(_SMALL))
        # Another large frame is likely to follow one: bytes after its header would be copied.
        only_header = self._last > _SMALL and not length
        return self._block.view(
            self._end, self._start + HEADER_LENGTH if only_header else self._block.size
        )

    def _own(self, length: int, most: int) -> _Block:
        """For a large frame, or its beginning. Only whole ones are worth keeping."""
        return self._blocks.take(length) if length <= most else _Block(most)

    def _move_to(self, block: _Block) -> None:
        came = self._end - self._start
        block.view(0, came)[:] = self._block.view(self._start, self._end)
        self._block, self._start, self._end = block, 0, came


class _Block:
    """Memory for frames, aligned as their tensors ask for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.bytes = bytearray(size + ALIGNMENT)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.bytes))
        self.offset = -address % ALIGNMENT

    def view(self, start: int, end: int) -> memoryview:
        # Not a slice of one view that is kept: each holds the bytes anew, which `is_free` counts.
        return memoryview(self.bytes)[self.offset + start : self.offset + end]

    @property
    def is_free(self) -> bool:
        return sys.getrefcount(self.bytes) < _UNUSED


class _Blocks:
    """The blocks of one reader."""

    def __init__(self) -> None:
        self._all: list[_Block] = []

    def take(self, size: int) -> _Block:
        """One that nothing refers to, of at least this size but not far more, or a new one.

        The oldest are given up for it; whoever looks at one keeps it.
        """
        for block in self._all:
            if size <= block.size <= 2 * size and block.is_free:
                return block
        self._all.append(_Block(size))
        while len(self._all) > _KEPT_BLOCKS or sum(b.size for b in self._all[1:]) > _KEPT_BYTES:
            del self._all[0]
        return self._all[-1]


def padded(length: int) -> int:
    """A frame's length on a socket: the next one begins aligned."""
    return length + -length % ALIGNMENT
