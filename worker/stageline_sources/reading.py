"""Files and parts of them, however often the connection breaks on the way."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from threading import Event

from stageline_sources.errors import Interruption, SourceError
from stageline_sources.ranges import Piece
from stageline_sources.source import Check, Source

_TRIES = 6  # without one byte in between
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 300.0  # the hub counts requests over five minutes

Count = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that was seen: what is read of it later must be of the same version."""

    name: str
    size: int
    version: str


class Reader:
    """Reads a source's files, and goes on where a broken connection left off.

    `stop` ends waiting and reading, for whoever gives up. Safe to use from several threads.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.stop = Event()

    def whole(self, name: str, limit: int) -> bytes | None:
        """A file of at most `limit` bytes, None when there is none. Raises SourceError."""
        stream = _Stream(self, name, None)
        with closing(stream.chunks()) as chunks:
            data = b"".join(_up_to(chunks, limit + 1))
        if stream.file is None:
            return None
        if len(data) > limit:
            raise SourceError(
                f"{self.source.uri}: {name} has more than {limit >> 20} MiB, it cannot be right"
            )
        if stream.check is not None and not stream.check(data):
            raise SourceError(
                f"{self.source.uri}: {name} arrived damaged, its checksum is not the source's; "
                "if that happens again, the file there is damaged"
            )
        return data

    def beginning(self, name: str, length: int) -> tuple[RemoteFile, bytes] | None:
        """A file and its first bytes, None when there is none. Raises SourceError."""
        stream = _Stream(self, name, (0, length))
        with closing(stream.chunks()) as chunks:
            data = b"".join(_up_to(chunks, length))
        return None if stream.file is None else (stream.file, data)

    def part(self, file: RemoteFile, begin: int, end: int) -> bytes:
        """Its bytes [begin, end). Raises SourceError."""
        data = bytearray(end - begin)
        self.read_into(Piece(file.name, begin, (memoryview(data),)), file.version, lambda _: None)
        return bytes(data)

    def read_into(self, piece: Piece, version: str, count: Count) -> None:
        """Fill the memory of `piece`, telling how many bytes came each time. Raises SourceError."""
        stream = _Stream(self, piece.file, (piece.begin, piece.end), version)
        places = iter(piece.into)
        place = next(places)
        with closing(stream.chunks()) as chunks:
            for chunk in chunks:
                left = memoryview(chunk)
                while left:
                    place = place or next(places)
                    taken = min(len(left), len(place))
                    place[:taken] = left[:taken]
                    place, left = place[taken:], left[taken:]
                count(len(chunk))
        if place or any(places):
            raise SourceError(
                f"{self.source.uri}: {piece.file} was removed or cut off while it was read"
            )


class _Stream:
    """One file or part, over as many requests as it takes."""

    def __init__(
        self, reader: Reader, name: str, part: tuple[int, int] | None, version: str = ""
    ) -> None:
        self._reader = reader
        self._name = name
        self._begin = part[0] if part else 0
        self._end = part[1] if part else None
        self._version = version
        self._done = 0
        self._fruitless = 0
        self.file: RemoteFile | None = None
        self.check: Check | None = None

    def chunks(self) -> Generator[bytes, None, None]:
        """The bytes in order, each once."""
        while True:
            before = self._done
            try:
                yield from self._try()
            except Interruption as broken:
                self._fruitless = 1 if self._done > before else self._fruitless + 1
                self._wait(broken)
            else:
                return

    def _try(self) -> Generator[bytes, None, None]:
        source = self._reader.source
        with source.open(self._name, self._rest(), self._version) as body:
            if body is None:
                self.file = None
                return
            self.file = RemoteFile(self._name, body.size, body.version)
            self.check = body.is_intact or self.check
            self._version = body.version
            end = body.size if self._end is None else min(self._end, body.size)
            for chunk in body.chunks:
                if self._reader.stop.is_set():
                    raise SourceError(f"{source.uri}: reading {self._name} was given up")
                wanted = chunk[: end - self._begin - self._done]
                if wanted:
                    self._done += len(wanted)
                    yield wanted
            if self._begin + self._done < end:
                raise Interruption("the connection ended early")

    def _rest(self) -> tuple[int, int] | None:
        if self._end is not None:
            return self._begin + self._done, self._end
        if self._done and self.file is not None:
            return self._done, self.file.size
        return None

    def _wait(self, broken: Interruption) -> None:
        uri = self._reader.source.uri
        if self._fruitless >= _TRIES:
            raise SourceError(
                f"{uri}: {self._name} cannot be read: {broken}, {_TRIES} times in a row"
            ) from None
        wait = broken.wait
        if wait is None:
            wait = _FIRST_WAIT * 2 ** (self._fruitless - 1) * random.uniform(0.5, 1.0)
        if wait > _LONGEST_WAIT:
            raise SourceError(
                f"{uri}: {self._name} cannot be read: {broken}, and it asks to wait {wait:.0f} s"
            ) from None
        if self._reader.stop.wait(wait):
            raise SourceError(f"{uri}: reading {self._name} was given up") from None


def _up_to(chunks: Iterable[bytes], limit: int) -> Iterable[bytes]:
    """Chunks until there are `limit` bytes, and no request for more."""
    left = limit
    for chunk in chunks:
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return
