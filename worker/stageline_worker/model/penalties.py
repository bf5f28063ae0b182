"""Penalties for tokens that a sequence already has, as vLLM defines them.

The repetition penalty (CTRL, arXiv 1909.05858) divides the logit of each token of prompt and
output, or multiplies it where it is negative; the presence penalty is taken from the logit of each
token of the output, the frequency penalty as often as it is there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stageline_worker.microbatch import Sampling, Segment
from stageline_worker.model.errors import StageError


def penalised(sampling: Sampling) -> bool:
    """Whether `sampling` has a penalty."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )


class TokenCounts:
    """Tokens of the sequences in their slots, of those whose segments say where a prompt ends.

    It takes no memory before the first of them.
    """

    def __init__(self, slots: int, vocabulary: int, device: torch.device) -> None:
        self._shape = (slots, vocabulary)
        self._device = device
        self._output: Tensor | None = None  # int32: how often each token is there
        self._prompt: Tensor | None = None  # bool: whether it is there

    def count(self, segments: Sequence[Segment], ids: Tensor) -> None:
        """Add the tokens `ids` of `segments`; one that starts at 0 begins anew."""
        ids = ids.to(self._device)
        counts = [segment.count for segment in segments]
        for segment, part in zip(segments, torch.split(ids, counts), strict=True):
            if segment.prompt is not None:
                self._add(segment, part, segment.prompt)

    def penalise(
        self, scores: Tensor, segments: Sequence[Segment], samplings: Sequence[Sampling]
    ) -> Tensor:
        """`scores` [draws, vocabulary] of `segments`, changed where their `samplings` have
        penalties."""
        rows = [row for row, sampling in enumerate(samplings) if penalised(sampling)]
        if not rows:
            return scores
        for row in rows:
            if segments[row].prompt is None:
                raise StageError(
                    f"slot {segments[row].slot} has penalties, its segments do not say where its "
                    "prompt ends"
                )
        prompt, output = self._room()
        slots = [segments[row].slot for row in rows]
        chosen = [samplings[row] for row in rows]
        scores[rows] = _penalise(scores[rows], chosen, prompt[slots], output[slots])
        return scores

    def _add(self, segment: Segment, ids: Tensor, prompt_end: int) -> None:
        prompt, output = self._room()
        if segment.start == 0:
            prompt[segment.slot] = False
            output[segment.slot] = 0
        of_prompt = max(prompt_end - segment.start, 0)
        prompt[segment.slot, ids[:of_prompt]] = True
        made = ids[of_prompt:]
        output[segment.slot].scatter_add_(0, made, torch.ones_like(made, dtype=torch.int32))

    def _room(self) -> tuple[Tensor, Tensor]:
        if self._prompt is None or self._output is None:
            self._prompt = torch.zeros(self._shape, dtype=torch.bool, device=self._device)
            self._output = torch.zeros(self._shape, dtype=torch.int32, device=self._device)
        return self._prompt, self._output


def _penalise(
    scores: Tensor, samplings: Sequence[Sampling], prompt: Tensor, output: Tensor
) -> Tensor:
    def column(name: str) -> Tensor:
        values = [getattr(sampling, name) for sampling in samplings]
        return torch.tensor(values, dtype=torch.float32, device=scores.device).unsqueeze(1)

    there = output > 0
    factor = torch.where(there | prompt, column("repetition_penalty"), 1.0)
    scores = torch.where(scores > 0, scores / factor, scores * factor)
    return scores - column("frequency_penalty") * output - column("presence_penalty") * there
