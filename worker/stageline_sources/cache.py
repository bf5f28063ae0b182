"""A folder in which parts of files are kept, for whoever on this node asks for them next.

Several processes may use one folder at once. A part is a file of its own, written under another
name and renamed when it is whole, and it ends with a checksum: one that a crash has torn or a disk
has spoilt is not believed, but fetched again. So nothing needs to be synchronised or locked, and
whoever wants room deletes what he likes. A cache is never needed: where it cannot be read or
written, `complaint` says so, and all goes on without it, until it is `of_use` again.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import time
import uuid
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

_TRAILER: Final = struct.Struct("<8sI")
_MAGIC: Final = b"stagel01"
_CHUNK: Final = 8 << 20
_STALE_SECONDS: Final = 3600.0
_UNFINISHED: Final = ".unfinished-"
_LONGEST_BLOB: Final = 1 << 30
_AGAIN_SECONDS: Final = 30.0
"""After a failure: what needs room or another owner is not mended sooner."""


class Part(NamedTuple):
    """Bytes [begin, end) of one version of a file; `end` is -1 where only its writer knows it."""

    source: str
    """Where the file is, the same however its revision is called."""
    file: str
    version: str
    begin: int
    end: int


class PartCache:
    """Parts of files in `folder`. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.complaint = ""
        """Why it is of no use; empty while it is."""
        self._again = 0.0
        self._lacking = 1  # bytes of what could not be written
        self._tidied: set[Path] = set()

    def has(self, part: Part) -> bool:
        """Whether there is such a part; what it is worth, only reading it tells."""
        return self._path(part).exists()

    def read_into(self, part: Part, memory: memoryview) -> bool:
        """Fill the memory with the part; False when it is not there, or damaged."""
        try:
            with self._path(part).open("rb") as file:
                if _is_whole(file, memory):
                    return True
        except FileNotFoundError:
            return False
        except OSError as error:
            self._complain("read", error)
            return False
        self._discard(part)
        return False

    def read(self, part: Part) -> bytes | None:
        """The part, of whatever length; None when it is not there, or damaged."""
        with suppress(OSError):
            size = self._path(part).stat().st_size - _TRAILER.size
            data = bytearray(size if 0 <= size <= _LONGEST_BLOB else 0)
            if self.read_into(part, memoryview(data)):
                return bytes(data)
        return None

    def keep(self, part: Part, data: memoryview) -> None:
        """Keep the part for the next time, if that can be."""
        if self.complaint and time.monotonic() < self._again:
            return
        path = self._path(part)
        fresh = _unfinished(path.parent)
        try:
            self._make_room(path.parent)
            with fresh.open("wb") as file:
                for start in range(0, len(data), _CHUNK):
                    file.write(data[start : start + _CHUNK])
                file.write(_TRAILER.pack(_MAGIC, zlib.crc32(data)))
            fresh.replace(path)
            self.complaint = ""
        except OSError as error:
            self._lacking = len(data)
            self._complain("written", error)
            with suppress(OSError):
                fresh.unlink(missing_ok=True)

    def of_use(self) -> bool:
        """Whether it can be written now; tries it, with as much as there was no room for."""
        tried = _unfinished(self.folder)
        try:
            self._make_room(self.folder)
            with tried.open("wb") as file:
                for start in range(0, self._lacking, _CHUNK):
                    file.write(bytes(min(_CHUNK, self._lacking - start)))
            self.complaint = ""
        except OSError as error:
            self._complain("written", error)
        with suppress(OSError):
            tried.unlink(missing_ok=True)
        return not self.complaint

    def _path(self, part: Part) -> Path:
        """One folder for each version of a file, which tells people what it is of."""
        of = "\0".join((part.source, part.file, part.version))
        words = re.sub(r"[^\w.-]+", "-", f"{part.source}-{part.file}", flags=re.ASCII)[-100:]
        folder = f"{words.lstrip('.-')}-{hashlib.sha256(of.encode()).hexdigest()[:24]}"
        name = f"{part.begin}-{part.end}" if part.end >= 0 else f"{part.begin}-"
        return self.folder / folder / name

    def _make_room(self, folder: Path) -> None:
        """Make the folder, and remove what writers that died have left there."""
        folder.mkdir(parents=True, exist_ok=True)
        if folder in self._tidied:
            return
        self._tidied.add(folder)
        for left in folder.glob(f"{_UNFINISHED}*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    left.unlink()

    def _discard(self, part: Part) -> None:
        with suppress(OSError):  # a reader without the right to delete reads it from its source
            self._path(part).unlink(missing_ok=True)

    def _complain(self, done: str, error: OSError) -> None:
        self._again = time.monotonic() + _AGAIN_SECONDS
        self.complaint = (
            f"the cache in {self.folder} cannot be {done} "
            f"({error.strerror or error}), so the next start downloads again: make room in it, or "
            "let the worker's user write to it"
        )


def _unfinished(folder: Path) -> Path:
    return folder / f"{_UNFINISHED}{uuid.uuid4().hex}"


def _is_whole(file: BinaryIO, memory: memoryview) -> bool:
    """Fill the memory from the file; whether it is as it was written."""
    if os.fstat(file.fileno()).st_size != len(memory) + _TRAILER.size:
        return False
    checksum = 0
    for start in range(0, len(memory), _CHUNK):
        piece = memory[start : start + _CHUNK]
        if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            return False
        checksum = zlib.crc32(piece, checksum)
    return file.read() == _TRAILER.pack(_MAGIC, checksum)
