"""Draw the tokens of a microbatch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stageline_worker.microbatch import Segment
from stageline_worker.model.sampling import draw


class Sampler:
    def __init__(self, slots: int, vocabulary: int, device: torch.device) -> None:
        pass

    def draw(
        self, logits: Tensor, segments: Sequence[Segment], ids: Tensor | None
    ) -> dict[str, Tensor]:
        samplings = [segment.sampling for segment in segments if segment.sampling is not None]
        return {"tokens": draw(logits, samplings).cpu()}
