"""One vector for a text: how token vectors become an embedding.

A sentence-transformers folder says it in modules.json and its pooling module's config.json. A
plain encoder says nothing: then it is the mean over the tokens that are not padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import torch
from torch import Tensor

from stageline_worker.model.checkpoint import Checkpoint
from stageline_worker.model.errors import CheckpointError, UnsupportedModelError

_LEGACY = "pooling_mode_"
_LEGACY_NAMES = {"cls_token": "cls", "mean_tokens": "mean"}


@dataclass(frozen=True, slots=True)
class Pooling:
    """Mean or first token, and whether the vector is scaled to length 1."""

    mode: Literal["mean", "cls"] = "mean"
    normalize: bool = False

    def __call__(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """`hidden` [batch, tokens, size] and `mask` [batch, tokens] to [batch, size]."""
        if self.mode == "cls":
            pooled = hidden[:, 0]
        else:
            mask = torch.ones(hidden.shape[:2], device=hidden.device) if mask is None else mask
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        if self.normalize:
            pooled = torch.nn.functional.normalize(pooled, p=2, dim=1)
        return pooled.contiguous()


def read_pooling(checkpoint: Checkpoint) -> Pooling:
    """The folder's own pooling; UnsupportedModelError for one that is not mean or cls."""
    modules = checkpoint.read_json("modules.json")
    if modules is None:
        return Pooling()
    if not isinstance(modules, list):
        raise CheckpointError("modules.json is not a list of modules")
    mode: Literal["mean", "cls"] = "mean"
    normalize = False
    for kind, path in map(_module, modules):
        if kind == "Pooling":
            mode = _mode(checkpoint.read_json(f"{path}/config.json"))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise UnsupportedModelError(
                f"modules.json has a {kind} module; supported are Transformer, Pooling, Normalize"
            )
    return Pooling(mode, normalize)


def _module(entry: Any) -> tuple[str, str]:
    try:
        kind, path = entry["type"].rpartition(".")[2], entry["path"]
        inside = not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
    except (KeyError, TypeError, AttributeError):
        inside = False
    if not inside:
        raise CheckpointError(f"modules.json has an entry that is not a module: {entry!r}")
    return kind, path


def _mode(config: Any) -> Literal["mean", "cls"]:
    if not isinstance(config, dict):
        raise CheckpointError("modules.json names a pooling module that has no config.json")
    mode = config.get("pooling_mode") or [
        _LEGACY_NAMES.get(name.removeprefix(_LEGACY), name.removeprefix(_LEGACY))
        for name, on in config.items()
        if name.startswith(_LEGACY) and on
    ]
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    if mode == "mean" or mode == []:
        return "mean"
    if mode == "cls":
        return "cls"
    asked = " and ".join(map(str, mode)) if isinstance(mode, list) else mode
    raise UnsupportedModelError(f"the pooling {asked} is not supported; mean and cls are")
