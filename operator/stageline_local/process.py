"""What to run, and what became of it: the shape of a pod's container, and of its status.

`stageline up` fills these in by itself; a kubelet that runs pods as processes fills them in from
pod specs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from stageline_local.restarts import RestartPolicy


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process that is to be kept running."""

    name: str
    """Unique in its runtime."""
    command: tuple[str, ...]
    log: Path
    """Takes stdout and stderr. Emptied at the first start, appended to by restarts."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the runtime's own environment."""
    grace_seconds: float = 10.0
    """From SIGTERM to SIGKILL."""
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    previous_log: Path | None = None
    """Given: each life has a log of its own, and this is where the one before is kept."""
    folder: Path | None = None
    """Where it works; None for where the runtime does."""


class Phase(StrEnum):
    """Where a process stands."""

    WAITING = "waiting"  # to be started, at once or after a back-off
    RUNNING = "running"
    STOPPING = "stopping"  # SIGTERM is sent
    ENDED = "ended"  # and will not be started again


@dataclass(frozen=True, slots=True)
class Life:
    """From start to end of a process, in UTC."""

    started: datetime
    ended: datetime


@dataclass(frozen=True, slots=True)
class Observation:
    """A process as its runtime sees it."""

    name: str
    phase: Phase = Phase.WAITING
    pid: int | None = None
    restarts: int = 0
    failures: int = 0
    """Lives in a row that ended before they were stable; 0 once one has been."""
    exit_code: int | None = None
    """Of the last life that ended; 128 + n when signal n ended it, as Kubernetes counts."""
    error: str = ""
    """Why the last life ended, one sentence; empty while nothing ended badly."""
    started: datetime | None = None
    """When the present life began, in UTC; None while there is none."""
    last: Life | None = None
    """The last life that ended."""
    delay: float = 0.0
    """Seconds of the back-off that it is waiting for."""
