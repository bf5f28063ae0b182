"""The folder of one `stageline up`: its lock, the documents it hands out, its logs."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class StateDirError(Exception):
    """The folder cannot be had; the message is a sentence."""


class StateDir:
    """Held from `with` to its end, or to the end of the process, however that comes."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self.path = root / name
        self.logs = self.path / "logs"

    def __enter__(self) -> Self:
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            (self._root / ".gitignore").write_text("*\n")
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StateDirError(
                f"cannot keep state in {self.path}: {error.strerror}; name a folder that can be "
                "written with --state-dir"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            raise StateDirError(
                f"{self._name} is already up from {self._root} (process {holder}): stop that one, "
                "or give this one another --state-dir"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)

    def write(self, name: str, text: str) -> Path:
        """Write a file whole or not at all, since its reader may look at any time."""
        target = self.path / name
        fresh = target.with_suffix(target.suffix + ".new")
        fresh.write_text(text)
        fresh.replace(target)
        return target

    def log(self, process: str) -> Path:
        """Where the output of this process goes."""
        return self.logs / f"{process}.log"
