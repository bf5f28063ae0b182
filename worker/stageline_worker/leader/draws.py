"""What the last stage drew, out of the tensors of a result."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stageline_wire import FrameError


def read_tokens(tensors: dict[str, Tensor], expected: int) -> list[int]:
    """The token of each draw. Raises FrameError when they are not so many."""
    tokens = tensors.get("tokens")
    if tokens is None or tokens.numel() != expected:
        found = "no tokens" if tokens is None else f"{tokens.numel()} tokens"
        raise FrameError(f"the last stage answered {found} where {expected} were due")
    return [int(token) for token in tokens.tolist()]


def read_logprobs(tensors: dict[str, Tensor], draws: int) -> list[list[Any]]:
    """[logprob, [[id, logprob], ...]] of each draw; empty when no draw asked for them.

    Raises FrameError when they are not those of so many draws.
    """
    values, ids = tensors.get("logprobs"), tensors.get("logprob_ids")
    if values is None or ids is None:
        return []
    if values.ndim != 2 or values.shape != ids.shape or len(values) != draws:
        raise FrameError(f"the last stage told logprobs {list(values.shape)} of {draws} draws")
    rows = zip(ids.tolist(), values.tolist(), strict=True)
    return [[row[0], _likeliest(found[1:], row[1:])] for found, row in rows]


def _likeliest(ids: list[int], values: list[float]) -> list[list[float]]:
    return [[token, value] for token, value in zip(ids, values, strict=True) if token >= 0]
