"""Every deadline of a worker, in seconds, and its pace. Tests shorten them; users need not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a worker waits for what."""

    beat: float = 1.0
    """A report at least this often, as a sign of life."""
    report_gap: float = 0.2
    """Reports of mere progress come no closer together than this."""
    silence: float = 10.0
    """A stage that reports nothing for this long is gone."""
    connect: float = 10.0
    """A session forms, links and canary included, within this."""
    settle: float = 0.2
    """Between the end of a session and the next; doubles with each that does not form."""
    settle_max: float = 5.0
    blame: float = 0.1
    """A broken link ends the session after this, unless a stage turns out to be gone: one that
    dies breaks several links, and its neighbours break theirs."""
    hello: float = 5.0
    """A link that arrives before its OpenSession waits this long for it."""
    hop_floor: float = 10.0
    """No microbatch is overdue before this, however fast the ring was."""
    hop_factor: float = 20.0
    """Beyond the floor a microbatch may take this many times what was measured."""
    complaint: float = 30.0
    """Whether what a stage complains of and does without is mended is looked at this often."""
    waiting: float = 30.0
    """Accepted work waits this long for a ring that does not turn."""
    drain: float = 25.0
    """Work in flight may take this long to finish once draining began. A pod has 30 s in all."""
    redial: float = 0.1
    """First pause before the control stream is dialed again; doubles up to `redial_max`."""
    redial_max: float = 2.0
    stretch: float = 1.8
    """A microbatch that takes prompt tokens along with decoding ones may take this many times what
    it takes without; infinite: whole prompts go in, up to the chunk. So with what is not foreseen
    the slowest tokens of a hundred come in twice the time."""
