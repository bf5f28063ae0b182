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
        self._size = 0
        self._believed = _FIRST
        self._was_large = False

    def next(self) -> Frame | None:
        """The next frame, None when more must come first.

        Raises EOFError at the end, FrameError when this is no frame, and what `read` raises.
        """
        while (frame := self._whole()) is None:
            count = self._read(self._room())
            if count is None:
                return None
            if count == 0:
                raise EOFError
            self._end += count
        return frame

    def _whole(self) -> Frame | None:
        if not self._size and self._end - self._start >= HEADER_LENGTH:
            self._begin()
        if not self._size or self._end - self._start < padded(self._size):
            return None
        frame = decode(self._block.view(self._start, self._start + self._size))
        self._start += (length := padded(self._size))
        self._believed = max(self._believed, length)
        self._was_large, self._size = length > _SMALL, 0
        return frame

    def _begin(self) -> None:
        size = frame_length(self._block.view(self._start, self._start + HEADER_LENGTH))
        if size > self.most:
            raise FrameError(f"a frame says it has {size} bytes, this link takes {self.most}")
        self._size, self.largest = size, max(size, self.largest)
        if (length := padded(size)) > _SMALL:
            self._move_to(self._own(length, self._believed))

    def _room(self) -> memoryview:
        """Where the next bytes go. What follows a large frame is left for a block of its own."""
        length = padded(self._size)
        if length > _SMALL:
            if self._end == self._block.size:
                self._move_to(self._own(length, 2 * self._end))
            return self._block.view(self._end, min(length, self._block.size))
        needed = length or HEADER_LENGTH
        if self._start + needed > self._block.size or self._block.size > _SMALL:
            self._move_to(self._blocks.take(_SMALL))
        # Another large frame is likely to follow one: bytes after its header would be copied.
        only_header = self._was_large and not length
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
        self._bytes = bytearray(size + ALIGNMENT)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._bytes))
        self._offset = -address % ALIGNMENT

    def view(self, start: int, end: int) -> memoryview:
        # Not a slice of one view that is kept: each holds the bytes anew, which `is_free` counts.
        return memoryview(self._bytes)[self._offset + start : self._offset + end]

    @property
    def is_free(self) -> bool:
        return sys.getrefcount(self._bytes) < _UNUSED


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
