"""Zoo models cut into three uneven stages, and the uncut model to compare with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from stageline_worker.microbatch import Microbatch, Sampling, Segment
from stageline_worker.model import Stage, load
from stageline_worker.model.kernels import quicken
from stageline_worker.model.linear import hold
from support import zoo

CUTS = ((0, 1), (1, 5), (5, 6))
TOKENS = 20


@cache
def stages(name: str) -> tuple[Stage, ...]:
    """The zoo's model `name` in three stages of 1, 4 and 1 layers."""
    return tuple(load(str(zoo.checkpoint(name)), cut) for cut in CUTS)


@cache
def uncut_on_cpu(name: str) -> Any:
    """The uncut model with its matrices in the form in which stages have them: sums are added up
    in the same order, so that stages must equal it to the last bit."""
    model = copy.deepcopy(zoo.uncut(name))
    if name in zoo.DECODERS:  # the last of several stages has a head of its own
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    hold(model, embeds=True)
    quicken(model)
    return model


def inputs(name: str, *, padded: bool) -> dict[str, Tensor]:
    """Random inputs, two rows; with padding at the end of the second when asked."""
    random = torch.Generator().manual_seed(7)
    if name in zoo.VISION:
        return {"pixel_values": torch.randn(2, *zoo.IMAGE, generator=random)}
    made = {"input_ids": tokens(2, TOKENS)}
    if padded:
        made["attention_mask"] = torch.ones(2, TOKENS, dtype=torch.int64)
        made["attention_mask"][1, 13:] = 0
    return made


def tokens(rows: int, count: int, seed: int = 7) -> Tensor:
    """Random token ids, none of them special."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(3, zoo.VOCABULARY, (rows, count), generator=random)


def through(chain: Sequence[Stage], microbatch: Microbatch) -> dict[str, Tensor]:
    """What comes out of the last stage."""
    for stage in chain:
        microbatch = stage.forward(microbatch)
    return microbatch.tensors


def generate(
    chain: Sequence[Stage], prompt: Tensor, count: int, *, slot: int = 0, chunk: int = 1000
) -> list[int]:
    """Greedy tokens after `prompt` [tokens], prefilled in chunks, one sequence alone."""
    made: list[int] = []
    position, pending = 0, prompt
    while len(made) < count:
        part, pending = pending[:chunk], pending[chunk:]
        at_end = len(pending) == 0
        sampling = Sampling(seed=0, position=position + len(part)) if at_end else None
        segment = Segment(slot, position, len(part), sampling)
        result = through(chain, Microbatch({"input_ids": part}, (segment,)))["tokens"]
        position += len(part)
        if at_end:
            made.append(int(result))
            pending = result
    return made


def greedy(model: Any, prompt: Tensor, count: int) -> list[int]:
    """The same tokens by the uncut model's own `generate`."""
    with torch.inference_mode():
        made = model.generate(
            prompt[None],
            attention_mask=torch.ones_like(prompt)[None],
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return made[0, len(prompt) :].tolist()
