"""Tie this process to the supervisor's life, then become the command.

    launch.py SUPERVISOR_PID PIPE COMMAND...

Run as a script with `python -I -S`, before the command's own program, because what it does must
happen between fork and exec, where a supervisor with threads may not run Python. On Linux the
kernel kills the process when its supervisor dies (PIPE is -1). Elsewhere a small watcher in the
process's own group reads the supervisor's pipe: its end is the supervisor's.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(supervisor: int) -> None:
    """Ask the kernel to kill this process, by whatever name, when its parent dies."""
    import ctypes  # only here: the other path starts without it

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit(f"cannot tie the process to its supervisor: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != supervisor:  # it died before the call: no signal will come
        sys.exit("the supervisor is gone")


def watch_pipe(pipe: int) -> None:
    """Leave a watcher behind that kills the process group when the pipe ends."""
    group = os.getpgrp()
    if os.fork() == 0:
        os.read(pipe, 1)
        os.killpg(group, signal.SIGKILL)
    os.close(pipe)


def main() -> None:
    supervisor, pipe, *command = sys.argv[1:]
    if int(pipe) < 0:
        die_with_parent(int(supervisor))
    else:
        watch_pipe(int(pipe))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
