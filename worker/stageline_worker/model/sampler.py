"""What the last stage says of a microbatch: tokens, and how likely they were."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stageline_worker.microbatch import Sampling, Segment
from stageline_worker.model.errors import StageError
from stageline_worker.model.penalties import TokenCounts, penalised
from stageline_worker.model.sampling import draw


class Sampler:
    """Draws for sequences in `slots` slots; what it counts of them follows from their segments."""

    def __init__(self, slots: int, vocabulary: int, device: torch.device) -> None:
        self._counts = TokenCounts(slots, vocabulary, device)

    def draw(
        self, logits: Tensor, segments: Sequence[Segment], ids: Tensor | None
    ) -> dict[str, Tensor]:
        """The tensors of a result: `tokens`, with `logprobs` and `logprob_ids` where one asks.

        `logits` [draws, vocabulary] has a row for each segment with a sampling, `ids` [tokens] are
        the microbatch's; they are needed where a segment says where its prompt ends.
        """
        if any(segment.prompt is not None for segment in segments):
            if ids is None:
                raise StageError("a sequence has penalties, and its tokens did not come along")
            self._counts.count(segments, ids)
        drawing = [segment for segment in segments if segment.sampling is not None]
        samplings = [segment.sampling for segment in drawing if segment.sampling is not None]
        changed = any(penalised(sampling) or sampling.banned for sampling in samplings)
        scores = logits.to(torch.float32, copy=changed)
        scores = self._counts.penalise(scores, drawing, samplings)
        tokens = draw(_without_banned(scores, samplings), samplings)
        return {"tokens": tokens.cpu()} | _logprobs(logits, tokens, samplings)


def _without_banned(scores: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    for row, sampling in enumerate(samplings):
        if banned := [token for token in sampling.banned if 0 <= token < scores.shape[1]]:
            scores[row, banned] = float("-inf")
    return scores


def _logprobs(logits: Tensor, tokens: Tensor, samplings: Sequence[Sampling]) -> dict[str, Tensor]:
    """Both [draws, 1 + most asked for]: first the drawn token's, then the likeliest's; -1 is the
    id of what a row did not ask for."""
    asked = [sampling.logprobs for sampling in samplings]
    rows = [row for row, count in enumerate(asked) if count is not None]
    if not rows:
        return {}
    most = min(max(asked[row] or 0 for row in rows), logits.shape[1])
    logprobs = torch.zeros(len(asked), 1 + most)
    ids = torch.full((len(asked), 1 + most), -1)
    own = torch.log_softmax(logits[rows], dim=-1, dtype=torch.float32)
    drawn = tokens[rows].unsqueeze(1)
    likeliest = own.topk(most)
    told = torch.cat((own.gather(1, drawn), likeliest.values), dim=1).cpu()
    told_ids = torch.cat((drawn, likeliest.indices), dim=1).cpu()
    for at, row in enumerate(rows):
        width = 1 + min(asked[row] or 0, most)
        logprobs[row, :width] = told[at, :width]
        ids[row, :width] = told_ids[at, :width]
    return {"logprobs": logprobs, "logprob_ids": ids}
