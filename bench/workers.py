"""Stages as processes that a benchmark starts with its own load and timing."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stageline_api.documents import StageDocument
from stageline_worker.process import serve
from stageline_worker.server import Load, load_stage
from stageline_worker.timing import Timing


@contextmanager
def workers(
    documents: Sequence[StageDocument], load: Load = load_stage, timing: Timing | None = None
) -> Iterator[str]:
    """A process for each stage, pinned to a core; the leader's address."""
    spawn = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))
    stages = [
        spawn.Process(target=_serve, args=(stage, load, timing, cores[stage.stage % len(cores)]))
        for stage in documents
    ]
    for stage in stages:
        stage.start()
    try:
        yield documents[0].leader
    finally:
        for stage in stages:
            stage.terminate()
        for stage in stages:
            stage.join()


def _serve(document: StageDocument, load: Load, timing: Timing | None, core: int) -> None:
    os.sched_setaffinity(0, {core})
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    serve(document, load, timing)
