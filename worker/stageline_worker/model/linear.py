"""Linear layers for a CPU: the matrix as oneDNN wants it.

A decode step reads every matrix once for a few rows. torch keeps a weight as [outputs, inputs] and
multiplies by its transpose; oneDNN lays it out once in small blocks, in the order in which its
kernels read them, whatever the number of rows. Sums are the same but for their order. What makes
the two is what torch's own compiler calls on a CPU (torch/_inductor/mkldnn_lowerings.py).

Layers that are given the same tensor (queries, keys and values; gate and up) are one matrix, for
the sake of fewer calls.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from stageline_worker.model.errors import StageError

# oneDNN writes a kernel for each number of rows, which takes a millisecond or two, and keeps a
# thousand of all sizes: so many rows at most, or a multiple of them, are computed at once.
_ROWS = 128
# By attribute of one module, whose forward gives the first and the others the same tensor.
_SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("gate_proj", "up_proj"))


class PackedLinear(nn.Module):
    """A linear layer whose `weight` [outputs, inputs] only oneDNN can read."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
        self.bias = None if bias is None else bias.detach()

    def forward(self, given: Tensor) -> Tensor:
        size = given.shape[-1]
        rows = given.numel() // size
        if rows <= _ROWS or rows % _ROWS == 0:
            return self._product(given)
        flat, whole = given.reshape(rows, size), rows - rows % _ROWS
        made = torch.cat((self._product(flat[:whole]), self._product(flat[whole:])))
        return made.view(*given.shape[:-1], -1)

    def _product(self, given: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            given, self.packed, self.bias, "none", [], ""
        )
        return made


class HalfLinear(nn.Module):
    """A linear layer of float32 numbers whose `weight` [outputs, inputs] is held in float16.

    Sums are in float32: only the weights are rounded. Raises StageError for one that float16
    cannot hold.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        if (largest := weight.abs().max().item()) > torch.finfo(torch.float16).max:
            raise StageError(
                f"a weight of {largest:.0f} is more than float16 can hold: leave weightDtype out"
            )
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias)

    def forward(self, given: Tensor) -> Tensor:
        made: Tensor = torch.ops.quantized.linear_dynamic_fp16(given, self._packed)
        return made


class HalfEmbedding(nn.Module):
    """Rows of a matrix that is held in float16, by token, in float32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._weight = weight.to(torch.float16)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self._weight).float()


class Joined(nn.Module):
    """Linear layers of `sizes` outputs that are given the same tensor, computed as `linear`."""

    def __init__(self, linear: nn.Module, sizes: list[int]) -> None:
        super().__init__()
        self.linear = linear
        self._sizes = sizes
        self._given: Tensor | None = None
        self._parts: list[Tensor | None] = []

    def part(self, given: Tensor, index: int) -> Tensor:
        """What the layer of that number makes of `given`."""
        if given is not self._given or self._parts[index] is None:
            self._given = given
            self._parts = list(self.linear(given).split(self._sizes, dim=-1))
        part, self._parts[index] = self._parts[index], None
        assert part is not None
        if not any(other is not None for other in self._parts):
            self._given = None  # or it would be kept until the next step
        return part


class Part(nn.Module):
    """One of the layers that are joined."""

    def __init__(self, joined: Joined, index: int) -> None:
        super().__init__()
        self.joined = joined
        self._index = index

    def forward(self, given: Tensor) -> Tensor:
        return self.joined.part(given, self._index)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer and nothing more: what subclasses add would be lost."""
    return type(module) in (nn.Linear, Conv1D)


@cache
def can_pack() -> bool:
    """Whether torch has oneDNN on this processor, by the names that are known here."""
    try:
        with torch.inference_mode():
            PackedLinear(torch.ones(1, 1), None)(torch.ones(1, 1))
    except (AttributeError, RuntimeError):
        return False
    return True


def can_halve() -> bool:
    """Whether this processor has kernels for weights in float16."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def hold(model: Any, *, embeds: bool, half: bool = False) -> None:
    """Hold the linear layers of `model` that are on a CPU in float32 in another form, in place:
    with weights in float16 where `half`, else as oneDNN wants them. One after another, so that no
    more than one matrix is there twice; those without numbers yet (on meta) stay.

    A head may have the weight of the embedding, whose rows a stage that `embeds` must read. In
    float16 both are held, which takes what the one took; else they stay as they are. A stage that
    never embeds drops the table.
    """
    if not half and not can_pack():
        return
    form = HalfLinear if half else PackedLinear
    waiting = _join(model, form)
    tables = {
        id(part.weight): name
        for name, part in model.named_modules()
        if isinstance(part, nn.Embedding)
    }
    for name, linear in list(model.named_modules()):
        if not _gains(linear) or linear in waiting:
            continue
        table = tables.get(id(linear.weight))
        reads = table is not None and type(model.get_submodule(table)) is nn.Embedding
        if table is not None and embeds and not (half and reads):
            continue
        weight = _weight(linear)
        model.set_submodule(name, form(weight, linear.bias))
        if table is not None:
            model.set_submodule(table, HalfEmbedding(weight) if embeds else nn.Identity())


def _join(model: Any, form: type[nn.Module]) -> set[nn.Module]:
    """Join siblings that all have their numbers; those whose siblings lack them."""
    waiting: set[nn.Module] = set()
    for module in list(model.modules()):
        for names in _SIBLINGS:
            siblings: list[Any] = [getattr(module, name, None) for name in names]
            if not all(isinstance(one, nn.Module) and is_linear(one) for one in siblings):
                continue
            if not all(map(_gains, siblings)):
                waiting.update(siblings)
                continue
            joined = Joined(
                form(torch.cat([*map(_weight, siblings)]), _biases(siblings)),
                [len(_weight(one)) for one in siblings],
            )
            for index, name in enumerate(names):
                setattr(module, name, Part(joined, index))
    return waiting


def _biases(linears: list[Any]) -> Tensor | None:
    if all(linear.bias is None for linear in linears):
        return None
    return torch.cat(
        [
            torch.zeros(len(_weight(linear))) if linear.bias is None else linear.bias.detach()
            for linear in linears
        ]
    )


def _weight(linear: Any) -> Tensor:
    """[outputs, inputs]."""
    weight: Tensor = linear.weight.detach()
    return weight.t() if type(linear) is Conv1D else weight


def _gains(module: Any) -> bool:
    if not is_linear(module):
        return False
    weight: Tensor = module.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32
