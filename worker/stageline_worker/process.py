"""A worker as a process of its own: signals, malloc, log, exit code."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from stageline_api.documents import StageDocument
from stageline_wire.logs import to_stderr
from stageline_worker.channel import keep_large_blocks
from stageline_worker.last_words import leave
from stageline_worker.server import Load, WorkerError, WorkerServer, load_stage
from stageline_worker.signals import ENDING, hold
from stageline_worker.timing import Timing

_POLL = 0.1


def serve(
    document: StageDocument,
    load: Load = load_stage,
    timing: Timing | None = None,
    termination_log: Path | None = None,
) -> int:
    """Serve one stage until SIGTERM, SIGINT or a failure to load; the exit code.

    The first signal drains; another one ends the process at once. `termination_log` takes the
    sentence of a failure.
    """
    hold()
    keep_large_blocks()
    to_stderr()
    try:
        server = WorkerServer(document, load, timing)
        server.start()
    except WorkerError as error:
        sys.stderr.write(f"{error}\n")
        leave(termination_log, str(error))
        return 1
    # Not sigtimedwait: continued after SIGSTOP past its timeout, it gives a signal nobody sent.
    while not (failure := server.wait(_POLL)) and not signal.sigpending() & ENDING:
        pass
    while signal.sigpending() & ENDING:
        signal.sigwait(ENDING)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    server.stop()
    if failure:
        leave(termination_log, failure)
    return 1 if failure else 0
