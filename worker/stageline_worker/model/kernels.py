"""A model's own equations in fewer kernels, for a CPU in float32.

In a decode step most tensors are so small that calling a kernel takes longer than its work, and
transformers spells norms, rotations and some activations out in up to ten. What does the same in
three or four stands in for them. Before it does, it and the module are given the same numbers, and
must agree to rounding; what is not known or does not agree stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import FunctionType, MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import FastGELUActivation, NewGELUActivation

_ROUNDING = 2e-6  # of the largest value
_ROTATE = "apply_rotary_pos_emb"  # what transformers calls it in every model's file
_TOKENS, _SIZE = 3, 8  # of what a rotation is tried on

Pair = tuple[Tensor, Tensor]
Rotate = Callable[..., Pair]


class RootMeanSquareNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last dimension (arXiv 1910.07467)."""

    def __init__(self, weight: nn.Parameter, scale: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = weight  # only so that the module goes on having what it had
        size = scale.shape[-1]
        # sqrt(sum + size eps) is the length of a vector with one side more.
        self._side = torch.tensor(math.sqrt(size * eps))
        self._scale = scale * math.sqrt(size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(hidden_states, dim=-1, keepdim=True)
        return hidden_states / torch.hypot(length, self._side) * self._scale


class TanhGelu(nn.Module):
    """GELU by its approximation with tanh (arXiv 1606.08415)."""

    def forward(self, given: Tensor) -> Tensor:
        return F.gelu(given, approximate="tanh")


class Rotation:
    """Rotary position embedding of half-split heads (arXiv 2104.09864), whole or of their first
    elements: queries and keys at once, [rows, heads, tokens, size] each."""

    def __init__(self, own: Rotate) -> None:
        self._own = own
        self._sine: Tensor | None = None
        self._turned: Pair | None = None

    def __call__(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> Pair:
        if unsqueeze_dim != 1:
            return self._own(q, k, cos, sin, unsqueeze_dim)
        cosine, sine = self._tables(cos, sin)
        both = torch.cat((q, k), dim=1)
        heads, size = q.shape[1], cos.shape[-1]
        rotated = both if size == both.shape[-1] else both[..., :size]
        # The halves change places; the sign that one of them gets is the table's.
        swapped = rotated.roll(size // 2, -1)
        rotated.mul_(cosine).addcmul_(swapped, sine)
        return both[:, :heads], both[:, heads:]

    def _tables(self, cos: Tensor, sin: Tensor) -> Pair:
        """The same for all layers of a step: they are given the same tensors."""
        if self._turned is None or self._sine is not sin:
            half = sin.shape[-1] // 2
            signed = torch.cat((-sin[..., :half], sin[..., half:]), -1)
            self._sine, self._turned = sin, (cos.unsqueeze(1), signed.unsqueeze(1))
        return self._turned


def quicken(model: Any) -> None:
    """Let stand-ins take the places of what they can do in `model`, in place."""
    parameter = next(model.parameters())
    if parameter.device.type != "cpu" or model.dtype != torch.float32:
        return
    rotation = cache(_rotation)
    with torch.inference_mode():
        for name, module in list(model.named_modules()):
            stand_in = _stand_in(module)
            if stand_in is not None:
                model.set_submodule(name, stand_in)
            elif forward := _rotating(module, rotation):
                module.forward = MethodType(forward, module)


def _stand_in(module: nn.Module) -> nn.Module | None:
    if type(module) is nn.Dropout:
        return nn.Identity()  # as in evaluation, but for a call
    if type(module) in (NewGELUActivation, FastGELUActivation):
        numbers = torch.linspace(-8, 8, 1000)
        return made if _agree((made := TanhGelu())(numbers), module(numbers)) else None
    return _norm(module) if "RMSNorm" in type(module).__name__ else None


def _norm(module: nn.Module) -> nn.Module | None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, nn.Parameter) or weight.dim() != 1 or not isinstance(eps, float):
        return None
    # Rows of small numbers too, where eps decides.
    rows = _random(3, weight.shape[0]) * torch.tensor([[1.0], [30.0], [math.sqrt(eps)]])
    expected = module(rows)
    for scale in (weight.detach(), 1 + weight.detach()):
        made = RootMeanSquareNorm(weight, scale, eps)
        if all(map(_agree, made(rows), expected)):
            return made
    return None


def _rotating(
    module: nn.Module, rotation: Callable[[Rotate], Rotation | None]
) -> FunctionType | None:
    """The module's own forward with another function to rotate, where it has one that agrees."""
    forward = type(module).forward
    if not isinstance(forward, FunctionType) or _ROTATE not in forward.__code__.co_names:
        return None
    made = rotation(forward.__globals__[_ROTATE])
    return None if made is None else _with(forward, {_ROTATE: made})


def _rotation(own: Rotate) -> Rotation | None:
    made = Rotation(own)
    whole = _outcomes(own, made, _SIZE)
    part = _outcomes(own, made, _SIZE // 2)
    return made if whole is True and part is not False else None


def _outcomes(own: Rotate, made: Rotation, size: int) -> bool | None:
    """Whether both rotate the first `size` elements of heads alike; None: `own` cannot."""
    angles = _random(1, _TOKENS, size // 2).repeat(1, 1, 2)
    query, key = (_random(1, heads, _TOKENS, _SIZE) for heads in (4, 2))
    try:
        expected = own(query, key, angles.cos(), angles.sin())
    except RuntimeError:
        return None
    return all(map(_agree, made(query, key, angles.cos(), angles.sin()), expected))


def _with(function: FunctionType, names: dict[str, Any]) -> FunctionType:
    """`function`, for which `names` mean something else."""
    made = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _agree(made: Tensor, expected: Tensor) -> bool:
    if made.shape != expected.shape:
        return False
    return bool((made - expected).abs().max() <= _ROUNDING * expected.abs().max())


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
