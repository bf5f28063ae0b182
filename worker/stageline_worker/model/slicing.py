"""Cut a model in place: what another stage holds becomes a placeholder at its own index.

The list of layers keeps its length, because layer types, sliding windows and cache indices go by
a layer's number. The model's own forward then runs on every stage: it makes masks, positions and
rotary tables as it always does. Placeholders below the stage's layers return the hidden states
that came over the ring, so nothing that was computed before them matters; the first one after
them keeps what it is given, so nothing that follows matters.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from stageline_worker.model.architectures import Architecture


class Channel:
    """Where hidden states enter and leave a cut model."""

    def __init__(self) -> None:
        self.entered: Tensor | None = None
        self.left: Tensor | None = None


class _LayerBefore(nn.Module):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def forward(self, *_: Any, **__: Any) -> Tensor | None:
        return self._channel.entered


class _LayerAfter(nn.Module):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        if self._channel.left is None:
            self._channel.left = hidden_states
        return hidden_states


class _Embedding(nn.Module):
    """Stands for an embedding module: only shape, dtype and device of what it returns matter."""

    def __init__(self, channel: Channel, asked: str) -> None:
        super().__init__()
        self._channel = channel
        if asked:
            name, _, rest = asked.partition(".")
            setattr(self, name, _namespace(rest, torch.empty(0)))

    def forward(self, *_: Any, **__: Any) -> Tensor:
        assert self._channel.entered is not None
        return torch.zeros_like(self._channel.entered)


class _Head(nn.Module):
    """Stands for a module after the layers, whose result is never looked at."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states


def cut(model: Any, architecture: Architecture, lo: int, hi: int) -> Channel:
    """Keep layers [lo, hi) of `model`, embedding and head where they belong; drop the rest."""
    channel = Channel()
    layers = model.get_submodule(architecture.layers)
    first, last = lo == 0, hi == len(layers)
    for index in range(len(layers)):
        if index < lo:
            layers[index] = _LayerBefore(channel)
        elif index >= hi:
            layers[index] = _LayerAfter(channel)
    if not first:
        shared = tuple(model.all_tied_weights_keys.values()) if last else ()
        for name in architecture.embedding:
            _drop_embedding(model, name, _Embedding(channel, architecture.asks), shared)
    if not last:
        for name in architecture.head:
            _replace(model, name, _Head())
        model.all_tied_weights_keys = {}
    return channel


def _drop_embedding(
    model: nn.Module, name: str, stand_in: _Embedding, shared: tuple[str, ...]
) -> None:
    """Drop all of it but the tables whose weights, `shared`, are the head's as well."""
    for weight in shared:
        if weight.startswith(f"{name}."):
            table = weight.removeprefix(f"{name}.").rpartition(".")[0]
            if not table:
                return
            stand_in.add_module(table, model.get_submodule(f"{name}.{table}"))
    _replace(model, name, stand_in)


def _replace(model: nn.Module, name: str, stand_in: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    if getattr(owner, leaf) is not None:
        setattr(owner, leaf, stand_in)


def _namespace(path: str, value: Any) -> Any:
    for name in reversed(path.split(".")):
        value = SimpleNamespace(**{name: value})
    return value
