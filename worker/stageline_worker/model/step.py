"""Where the tokens of one microbatch go in the KV cache, and what they attend to.

Tensors that layers share are made once: places by the layer's capacity, masks by the tokens seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile

import torch
from torch import Tensor

from stageline_worker.microbatch import Segment
from stageline_worker.model.runs import Run, runs

_KEPT = 1 << 22  # elements of masks that one layer leaves to the next


class Decode:
    """The step's first rows, one token of each of as many sequences, for layers of one capacity.

    `masks` has one for each run, added to the scores [rows, 1, 1, longest], None where all rows
    are equally long.
    """

    def __init__(
        self,
        slots: Tensor,
        tokens: Tensor,
        capacity: int,
        runs: tuple[Run, ...],
        masks: tuple[Tensor | None, ...],
    ) -> None:
        self.runs = runs
        self.masks = masks
        self._slots = slots
        self._tokens = tokens
        self._capacity = capacity
        self._places: dict[int, Tensor] = {}

    def places(self, heads: int) -> Tensor:
        """Where the rows' heads go in a cache [slots, heads, capacity], counted through: int64
        [rows * heads]."""
        if heads not in self._places:
            head = torch.arange(heads, device=self._slots.device)
            first = self._slots[:, None] * heads + head
            self._places[heads] = (first * self._capacity + self._tokens[:, None]).flatten()
        return self._places[heads]


class Step:
    """The segments of one microbatch, in the order of its tokens."""

    def __init__(
        self, segments: Sequence[Segment], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.segments = segments
        self._dtype = dtype
        self._device = device
        self.decoding = len(list(takewhile(lambda segment: segment.count == 1, segments)))
        self._decodes: dict[int, Decode] = {}
        self._masks: dict[tuple[int, int, int], Tensor] = {}

    @cached_property
    def positions(self) -> Tensor:
        """Of each token in its own sequence, int64 [1, tokens]."""
        places = [
            position
            for segment in self.segments
            for position in range(segment.start, segment.start + segment.count)
        ]
        return torch.tensor([places], device=self._device)

    @property
    def chunks(self) -> Sequence[Segment]:
        """The segments after the decoding ones."""
        return self.segments[self.decoding :]

    def decode(self, capacity: int) -> Decode:
        """The decoding rows for layers that keep `capacity` tokens."""
        if capacity not in self._decodes:
            self._decodes[capacity] = self._decode(capacity)
        return self._decodes[capacity]

    def chunk_mask(self, queries: int, seen: int, window: int) -> Tensor:
        """Added to the scores [queries, seen] of the last `queries` of `seen` tokens in a row:
        each attends to `window` tokens, itself the last."""
        key = (queries, seen, window)
        if key not in self._masks:
            if sum(mask.numel() for mask in self._masks.values()) > _KEPT:
                self._masks.clear()
            last = torch.arange(seen - queries, seen, device=self._device)[:, None]
            tokens = torch.arange(seen, device=self._device)[None]
            self._masks[key] = self._hide((tokens > last) | (tokens <= last - window))
        return self._masks[key]

    def _decode(self, capacity: int) -> Decode:
        rows = self.segments[: self.decoding]
        slots = [segment.slot for segment in rows]
        made = runs(slots, [min(segment.start + 1, capacity) for segment in rows])
        places = [segment.start % capacity for segment in rows]
        return Decode(
            torch.tensor(slots, device=self._device),
            torch.tensor(places, device=self._device),
            capacity,
            made,
            tuple(None if run.even else self._run_mask(run) for run in made),
        )

    def _run_mask(self, run: Run) -> Tensor:
        lengths = torch.tensor(run.lengths, device=self._device)[:, None]
        hidden = torch.arange(run.longest, device=self._device)[None] >= lengths
        return self._hide(hidden)[:, None, None]

    def _hide(self, hidden: Tensor) -> Tensor:
        # Not a mask of booleans: every layer's attention would make it numbers again.
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=self._device)
        return mask.masked_fill_(hidden, float("-inf"))
