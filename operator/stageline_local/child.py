"""One life of a process: started in a group of its own, its output in a file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from pathlib import Path
from typing import BinaryIO

from stageline_local.process import ProcessSpec

_LAUNCH = Path(__file__).with_name("launch.py")
_TAIL_BYTES = 16 << 10
# What the process wrote last has nothing to do with these.
_FROM_OUTSIDE = {
    128 + signal.SIGKILL: "killed by SIGKILL (by hand, or by the system for want of memory)",
    128 + signal.SIGTERM: "killed by SIGTERM",
    128 + signal.SIGINT: "killed by SIGINT",
}
KERNEL_KILLS_ORPHANS = sys.platform == "linux"


class Lifeline:
    """A pipe whose end tells watchers that the supervisor is gone, where no kernel does."""

    def __init__(self) -> None:
        self.read, self._write = (-1, -1) if KERNEL_KILLS_ORPHANS else os.pipe()

    def close(self) -> None:
        """Let go; only after every child has ended."""
        for end in (self.read, self._write):
            if end >= 0:
                os.close(end)
        self.read = self._write = -1


class Child:
    """A running process. Must be started from a thread that lives as long as it should."""

    def __init__(self, process: Process, log: Path, log_start: int) -> None:
        self._process = process
        self._log = log
        self._log_start = log_start
        self.pid = process.pid

    @classmethod
    async def start(cls, spec: ProcessSpec, lifeline: Lifeline, *, first: bool) -> Child:
        """Start the command, with an empty log if it is the first life or has a log of its own.

        Raises OSError when the log cannot be written or no process can be made.
        """
        with _opened(spec, first=first) as log:
            start = log.seek(0, os.SEEK_END)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), str(lifeline.read)),
                *spec.command,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                env={**os.environ, **spec.env},
                cwd=spec.folder,
                start_new_session=True,
                pass_fds=(lifeline.read,) if lifeline.read >= 0 else (),
            )
        return cls(process, spec.log, start)

    async def wait(self) -> int:
        """Wait for the end, sweep what the process left in its group, return the exit code."""
        code = await self._process.wait()
        self.kill()
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Ask the process to end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """End the process and all of its group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reason(self, exit_code: int) -> str:
        """Why the process ended: the last line it wrote, or the signal, or the exit code."""
        if exit_code == 0:
            return "ended by itself (exit code 0)"
        if exit_code in _FROM_OUTSIDE:
            return _FROM_OUTSIDE[exit_code]
        line = last_line(self._log, self._log_start)
        if exit_code > 128:
            return f"killed by {_signal_name(exit_code - 128)}" + (f": {line}" if line else "")
        return line or f"ended with exit code {exit_code} and no word"


def last_line(log: Path, start: int) -> str:
    """The last line of `log` that is not blank, looking no further back than byte `start`."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:  # someone removed the log: the exit code still tells something
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _opened(spec: ProcessSpec, *, first: bool) -> BinaryIO:
    spec.log.parent.mkdir(parents=True, exist_ok=True)
    if spec.previous_log and not first:
        with contextlib.suppress(FileNotFoundError):  # somebody has tidied up
            spec.log.replace(spec.previous_log)
    return spec.log.open("wb" if first or spec.previous_log else "ab")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
