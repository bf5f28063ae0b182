"""Keys and values of a stage's layers, in slots that are allocated once.

Each layer keeps as many tokens of a slot as it looks back on: all that the model takes, or those
of its sliding window. A token has its place by its position modulo that number, so a window's
oldest token makes room for its newest; attention does not care in which order they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from stageline_worker.microbatch import Segment
from stageline_worker.model.blueprint import LayerCache
from stageline_worker.model.errors import StageError
from stageline_worker.model.memory import free_bytes

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class LayerKV:
    """One layer's keys [slots, heads, capacity, size] and values, likewise."""

    keys: Tensor
    values: Tensor

    @property
    def capacity(self) -> int:
        """Tokens kept of one slot."""
        return self.keys.shape[2]


class KeyValues:
    """Room for `slots` sequences of up to `tokens` tokens on the layers of `caches`.

    Raises StageError when there is not enough memory. What it holds is zero before it is written
    and after its slot was taken over, because a product with what is masked out must be a number.
    """

    def __init__(
        self,
        caches: Mapping[int, LayerCache],
        slots: int,
        tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.layers: dict[int, LayerKV] = {}
        self.slots = slots
        self._held = [0] * slots
        self._dirty = [0] * slots  # tokens that may have been written, of whatever sequence
        values = sum(cache.values_per_token * cache.kept(tokens) for cache in caches.values())
        with _enough_memory(slots, slots * values * dtype.itemsize, device):
            for index, cache in caches.items():
                shape = (slots, cache.heads, cache.kept(tokens))
                self.layers[index] = LayerKV(
                    _zeros((*shape, cache.key_size), dtype, device),
                    _zeros((*shape, cache.value_size), dtype, device),
                )

    @property
    def nbytes(self) -> int:
        """What is allocated."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers.values())

    def enter(self, segments: Sequence[Segment]) -> None:
        """Take slots over where a segment starts at 0; StageError, and nothing changed, when one
        does not go on where its slot is."""
        check_starts(segments, dict(enumerate(self._held)))
        for segment in segments:
            if segment.start == 0:
                self._clear(segment.slot)
            self._held[segment.slot] = 0  # if it fails half way, nobody may go on from there
            self._dirty[segment.slot] = segment.start + segment.count

    def leave(self, segments: Sequence[Segment]) -> None:
        """Count the tokens of segments that went through all layers."""
        for segment in segments:
            self._held[segment.slot] = segment.start + segment.count

    def reset(self) -> None:
        """Forget every sequence; the room stays."""
        self._held = [0] * self.slots

    def _clear(self, slot: int) -> None:
        for layer in self.layers.values():
            written = min(self._dirty[slot], layer.capacity)
            layer.keys[slot, :, :written] = 0
            layer.values[slot, :, :written] = 0


def check_starts(segments: Sequence[Segment], held: Mapping[int, int]) -> None:
    """StageError for a segment that does not go on where its slot, `held` tokens in, is."""
    for segment in segments:
        if segment.start and (tokens := held.get(segment.slot, 0)) != segment.start:
            raise StageError(
                f"slot {segment.slot} holds {tokens} tokens, its segment starts at {segment.start}"
            )


@contextmanager
def _enough_memory(slots: int, needed: int, device: torch.device) -> Iterator[None]:
    """Refuse what cannot be had before the kernel kills the process for it."""
    free = free_bytes(device)
    try:
        if free is not None and needed > free:
            raise MemoryError
        yield
    except (MemoryError, RuntimeError):  # torch tells both by RuntimeError
        there = "" if free is None else f", {free / _GIB:.2f} GiB are free"
        raise StageError(
            f"the KV cache of {slots} sequences needs {needed / _GIB:.2f} GiB{there}: lower "
            "batching.maxSequences or model.maxModelLen, or cut the model into more stages"
        ) from None


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # torch.zeros would leave the pages to be given out one by one, in the middle of a request.
    return torch.empty(shape, dtype=dtype, device=device).zero_()
