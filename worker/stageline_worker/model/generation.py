"""Segments of sequences through a stage: all of them at once, or one after another.

Both ways give the same: hidden states [1, tokens, hidden], from the last stage logits [draws,
vocabulary], a row for each segment that draws a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from stageline_worker.microbatch import Segment
from stageline_worker.model.attention import packed, settle
from stageline_worker.model.cache import StageCache
from stageline_worker.model.cutmodel import HIDDEN, CutModel
from stageline_worker.model.kv import KeyValues, check_starts
from stageline_worker.model.latent import LatentCache
from stageline_worker.model.place import Place
from stageline_worker.model.step import Step


class Generator(Protocol):
    """Takes segments through a stage, and keeps what they leave behind."""

    packs: bool

    def compute(self, entering: Tensor, segments: Sequence[Segment]) -> Tensor:
        """`entering`: ids [1, tokens] on stage 0, hidden states on others. StageError when a
        segment does not go on where its slot is; then no slot has changed."""
        ...

    def reset(self) -> None:
        """Forget every sequence."""
        ...


class Packed:
    """All segments of a microbatch in one forward pass, over KV slots allocated once."""

    packs = True

    def __init__(self, cut: CutModel, kv: KeyValues) -> None:
        self._cut = cut
        self._kv = kv
        self._place = Place(kv, latent=cut.architecture.latent)
        self._cache = LatentCache(self._place) if cut.architecture.latent else None
        settle(cut.model.get_submodule(cut.architecture.layers), self._place)

    def compute(self, entering: Tensor, segments: Sequence[Segment]) -> Tensor:
        self._kv.enter(segments)
        cut, step = self._cut, Step(segments, self._cut.dtype, self._cut.device)
        ends = _drawing(segments) if cut.last else []
        keep: dict[str, Any] = (
            {"logits_to_keep": torch.tensor(ends, device=cut.device)} if ends else {}
        )
        with packed(cut.model.config, self._place, step):
            output = cut.run(
                {_input(cut): entering},
                cache=self._cache,
                head=bool(ends),
                position_ids=step.positions,
                **keep,
            )
        self._kv.leave(segments)
        if not cut.last:
            hidden: Tensor = output
            return hidden
        return output.logits[0] if ends else _no_logits(cut)

    def reset(self) -> None:
        self._kv.reset()


class OneByOne:
    """Each segment in a forward pass of its own, with a cache of the library's for each slot: for
    models whose attention is theirs alone to compute."""

    packs = False

    def __init__(self, cut: CutModel) -> None:
        self._cut = cut
        self._slots: dict[int, StageCache] = {}

    def compute(self, entering: Tensor, segments: Sequence[Segment]) -> Tensor:
        caches = self._enter(segments)
        parts = torch.split(entering, [segment.count for segment in segments], dim=1)
        results = [
            result
            for segment, cache, part in zip(segments, caches, parts, strict=True)
            if (result := self._segment(segment, cache, part)) is not None
        ]
        self._slots.update(zip((segment.slot for segment in segments), caches, strict=True))
        if not self._cut.last:
            return torch.cat(results, dim=1)
        return torch.cat(results) if results else _no_logits(self._cut)

    def reset(self) -> None:
        self._slots.clear()

    def _enter(self, segments: Sequence[Segment]) -> list[StageCache]:
        """The caches of their slots, taken out: if one fails half way, nobody may go on there."""
        check_starts(segments, {slot: cache.tokens for slot, cache in self._slots.items()})
        held = [self._slots.pop(segment.slot, None) for segment in segments]
        return [
            cache if cache is not None and segment.start else self._new_cache()
            for segment, cache in zip(segments, held, strict=True)
        ]

    def _new_cache(self) -> StageCache:
        return StageCache(self._cut.model.config, *self._cut.layers)

    def _segment(self, segment: Segment, cache: StageCache, part: Tensor) -> Tensor | None:
        cut, draws = self._cut, segment.sampling is not None
        step = Step((segment,), cut.dtype, cut.device)
        output = cut.run(
            {_input(cut): part},
            cache=cache,
            use_cache=True,
            head=draws,
            position_ids=step.positions,
            **({"logits_to_keep": 1} if cut.last and draws else {}),
        )
        cache.advance(segment.count)
        if not cut.last:
            hidden: Tensor = output
            return hidden
        return output.logits[:, -1] if draws else None


def _input(cut: CutModel) -> str:
    return "input_ids" if cut.first else HIDDEN


def _drawing(segments: Sequence[Segment]) -> list[int]:
    """Of each segment that draws, its last token's place in the microbatch."""
    ends, end = [], 0
    for segment in segments:
        end += segment.count
        if segment.sampling is not None:
            ends.append(end - 1)
    return ends


def _no_logits(cut: CutModel) -> Tensor:
    return torch.empty(0, cut.model.config.vocab_size, device=cut.device)
