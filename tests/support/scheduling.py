"""A scheduler, work for it, and steps that come back."""

import math

from stageline_worker.leader.pace import Pace
from stageline_worker.leader.scheduler import Limits, Scheduler
from stageline_worker.leader.work import Generation
from stageline_worker.microbatch import Sampling

MAX_LEN = 24
STOP = 9
UNPACED = math.inf


def scheduler(slots=2, chunk=3, groups=2, stretch=UNPACED, **limits):
    """One whose cache holds `slots` sequences of the greatest length."""
    fields = {
        "kv_tokens": slots * MAX_LEN, "max_len": MAX_LEN, "in_flight": groups + 1,
        "max_waiting": 100, **limits,
    }  # fmt: skip
    return Scheduler(Limits(slots=slots, chunk=chunk, groups=groups, **fields), Pace(stretch))


def prompt(key, size=4, max_tokens=3, stop=(STOP,), **fields):
    """A generation behind a prompt of `size` tokens."""
    sampling = Sampling(seed=key, position=0)
    return Generation(key, list(range(size)), max_tokens, sampling, frozenset(stop), **fields)


def draws(step):
    """How many tokens the step draws."""
    return sum(segment.sampling is not None for segment in step.segments)


def back(ring, step, token=1):
    """The step comes back, every draw with the same token."""
    return ring.returned(step.sequence, [token] * draws(step), 0.01)


def shape(step):
    """What a step holds: key, start and count of each segment."""
    pairs = zip(step.keys, step.segments, strict=True)
    return [(key, segment.start, segment.count) for key, segment in pairs]


def decoding(ring, keys, **fields):
    """So many generations with their prompts behind them, all of them ready."""
    for key in keys:
        ring.add(prompt(key, size=2, max_tokens=20, **fields))
    steps = []
    while (step := ring.next()) is not None:
        steps.append(step)
    for step in steps:
        back(ring, step)
