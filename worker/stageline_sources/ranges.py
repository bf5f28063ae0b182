"""Which bytes to ask for: neighbours in one request, and no request so long that others idle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LARGEST = 32 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file from `begin` on, and the memory that they go to."""

    file: str
    begin: int
    into: memoryview

    @property
    def end(self) -> int:
        """The byte after its last."""
        return self.begin + len(self.into)


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring spans that one request asks for."""

    file: str
    begin: int
    into: tuple[memoryview, ...]

    @property
    def end(self) -> int:
        """The byte after its last."""
        return self.begin + sum(map(len, self.into))


def pieces(spans: Iterable[Span], largest: int = LARGEST) -> list[Piece]:
    """Spans in file order as few requests, each of `largest` bytes at most, and of nothing else."""
    made: list[Piece] = []
    for span in _cut(spans, largest):
        before = made[-1] if made else None
        if (
            before is not None
            and (before.file, before.end) == (span.file, span.begin)
            and span.end - before.begin <= largest
        ):
            made[-1] = Piece(before.file, before.begin, (*before.into, span.into))
        else:
            made.append(Piece(span.file, span.begin, (span.into,)))
    return made


def _cut(spans: Iterable[Span], largest: int) -> Iterator[Span]:
    for span in spans:
        for start in range(0, len(span.into), largest):
            yield Span(span.file, span.begin + start, span.into[start : start + largest])
