"""The KV cache of one sequence on one stage."""

from __future__ import annotations

from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class _Counter(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of another stage: it keeps no keys, only how many tokens they would cover."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cumulative_length = 0

    def get_seq_length(self) -> int:
        return self.cumulative_length


class StageCache(DynamicCache):
    """A cache for layers [lo, hi). A model asks layers of other stages for lengths too, layer 0
    first of all, so those count tokens without keeping any."""

    def __init__(self, config: Any, lo: int, hi: int) -> None:
        super().__init__(config=config)
        self.tokens = 0
        self._others: list[_Counter | DynamicSlidingWindowLayer] = []
        for index, layer in enumerate(self.layers):
            if lo <= index < hi:
                continue
            # A sliding layer already answers from its count alone.
            counter = layer if isinstance(layer, DynamicSlidingWindowLayer) else _Counter()
            self.layers[index] = counter
            self._others.append(counter)

    def advance(self, tokens: int) -> None:
        """Count `tokens` that have just gone through the stage's layers."""
        self.tokens += tokens
        for counter in self._others:
            counter.cumulative_length += tokens
