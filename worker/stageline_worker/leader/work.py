"""What the scheduler is asked for, and what it answers with. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stageline_worker.microbatch import Sampling, Segment


class QueueFull(Exception):
    """As much work waits as may wait."""


@dataclass(frozen=True, slots=True)
class Inference:
    """Tensors in, tensors out: one microbatch."""

    key: int


@dataclass(frozen=True, slots=True)
class Generation:
    """Tokens and how to go on from them.

    The last `output` of `tokens` were generated before, by whoever had this request; the prompt is
    what comes before them. `max_tokens` and `min_tokens` count from the end of the prompt.
    `sampling` gives all but the position and what is banned. The lower its `priority`, the sooner
    it is served.
    """

    key: int
    tokens: Sequence[int]
    max_tokens: int
    sampling: Sampling
    stop: frozenset[int]
    min_tokens: int = 0
    output: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One microbatch: an inference's (`inference` is its key) or segments of generations.

    `keys` names the generation of each segment; `tokens` are those of all segments, one after
    another. A step with neither is the canary's.
    """

    sequence: int
    inference: int | None = None
    keys: tuple[int, ...] = ()
    segments: tuple[Segment, ...] = ()
    tokens: Sequence[int] = ()


class Token(NamedTuple):
    """A generation has one more token; with a finish reason it was the last.

    `draw` is its place among the draws of the microbatch that brought it.
    """

    key: int
    token: int
    finish: str | None
    draw: int
