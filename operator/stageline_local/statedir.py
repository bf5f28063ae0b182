"""The folder of one `stageline up`: its lock, its kubeconfig, its logs."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

KUBECONFIG = "kubeconfig"
_LOOK_SECONDS = 0.2


class StateDirError(Exception):
    """The folder cannot be had; the message is a sentence."""


class StateDir:
    """Held from `with` to its end, or to the end of the process, however that comes."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self.path = root / name
        self.kubeconfig = self.path / KUBECONFIG
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
        if not _locked(self._lock):
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

    def log(self, process: str) -> Path:
        """Where the output of a process goes that is no pod."""
        return self.logs / f"{process}.log"


def _locked(lock: int) -> bool:
    """Take the lock. Who only looks whether it is held (`running`) holds it for a moment."""
    deadline = time.monotonic() + _LOOK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_SECONDS / 10)
        else:
            return True


def running(root: Path) -> list[Path]:
    """The folders of those that run from `root` now."""
    return [lock.parent for lock in sorted(root.glob("*/lock")) if _is_held(lock)]


def _is_held(lock: Path) -> bool:
    try:
        file = os.open(lock, os.O_RDONLY)
    except OSError:  # another user's, or gone this moment
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False
