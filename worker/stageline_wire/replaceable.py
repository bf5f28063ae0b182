"""Files that may be replaced at any time, as a kubelet replaces those of a Secret."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from stageline_wire.logs import log

_T = TypeVar("_T")


class Replaceable(Generic[_T]):
    """What `read` makes of some files, made anew when one of them is another. Any thread may ask.

    What is there now but cannot be read, by an exception of `refused`, is passed over: what was
    there before stays. At first it is raised.
    """

    def __init__(
        self, files: Sequence[Path], read: Callable[[], _T], refused: type[Exception]
    ) -> None:
        self._files = files
        self._read = read
        self._refused = refused
        self._lock = threading.Lock()
        self._stamp = self._stamped()
        self._current = read()

    def current(self) -> _T:
        """Of the files as they are now."""
        with self._lock:
            stamp = self._stamped()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._current = self._read()
                    log("files_replaced", folder=self._files[0].parent)
                except self._refused as error:
                    log("files_refused", reason=error)
            return self._current

    def _stamped(self) -> tuple[object, ...]:
        return tuple(map(_stamp, self._files))


def _stamp(file: Path) -> object:
    """Another one when the file is; a kubelet replaces what it is a link to."""
    try:
        stat = file.stat()
    except OSError as error:
        return error.errno
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
