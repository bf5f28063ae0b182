"""What a hub and an object store have in common: named files, whole or in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

Check = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Body:
    """A file on its way, or a part of it."""

    size: int  # bytes of the whole file
    version: str  # changes when the file does; "" when the source does not say
    chunks: Iterator[bytes]  # raises Interruption
    is_intact: Check | None = None  # of the whole file, where the source has a checksum of it


class Source(Protocol):
    """One model at one address. Safe to use from several threads."""

    uri: str

    @property
    def place(self) -> str:
        """Where its files are, the same for every revision."""

    @property
    def pinned(self) -> str:
        """The commit that `uri` itself names; "" where what it names may change."""

    @property
    def commit(self) -> str:
        """What `uri` stood for when it was first read; "" when the source has no such thing."""

    def open(
        self, name: str, part: tuple[int, int] | None = None, version: str = ""
    ) -> AbstractContextManager[Body | None]:
        """One try to get a file, or its bytes [begin, end); None when there is no such file.

        Raises Interruption, and SourceError also when the file is no longer of `version`.
        """
