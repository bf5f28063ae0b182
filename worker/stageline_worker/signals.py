"""SIGTERM and SIGINT wait for the one thread that asks for them."""

from __future__ import annotations

import signal

ENDING = frozenset({signal.SIGTERM, signal.SIGINT})


def hold() -> None:
    """Block the signals in this thread and in all that it starts.

    Called before anything is imported: numpy's BLAS starts threads at once, and one without the
    mask would take the signal. It would end the process without a word, or, as process 1 of a
    container, lose it, so that only SIGKILL ends the pod.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
