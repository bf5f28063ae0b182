"""When to start a dead process again: pure, time comes in as numbers.

As a kubelet does it: the first death is repaired at once, each further one in a row waits twice as
long, up to a limit, and a life that was long enough makes the count start anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Restart(StrEnum):
    """After which ends a process is started again; Kubernetes' own names."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Seconds throughout."""

    when: Restart = Restart.ALWAYS
    first_delay: float = 0.5
    """Before the second restart in a row; the first one waits for nothing."""
    max_delay: float = 30.0
    stable_seconds: float = 10.0
    """A life of at least this length is no failed start."""


@dataclass(frozen=True, slots=True)
class NextStart:
    """What follows a death: `delay` seconds until the next start, None for never."""

    failures: int
    delay: float | None


def after_exit(policy: RestartPolicy, failures: int, lived: float, exit_code: int) -> NextStart:
    """Decide on a process that ended after `lived` seconds, with `failures` before it in a row."""
    failures = 1 if lived >= policy.stable_seconds else failures + 1
    ended_well = policy.when is Restart.ON_FAILURE and exit_code == 0
    if policy.when is Restart.NEVER or ended_well:
        return NextStart(failures, None)
    return NextStart(failures, _delay(policy, failures))


def _delay(policy: RestartPolicy, failures: int) -> float:
    if failures <= 1:
        return 0.0
    doublings = min(failures - 2, 32)  # enough for any limit, and no float overflows
    return min(policy.max_delay, policy.first_delay * 2.0**doublings)
