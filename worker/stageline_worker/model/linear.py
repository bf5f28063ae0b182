"""Linear layers for a CPU: the matrix in blocks of outputs, each [inputs, outputs] in a row.

A decode step reads every matrix once for a few rows. torch keeps a weight as [outputs, inputs] and
multiplies by its transpose; turned as a whole it would be read with a page of memory to a row, so
it is turned in blocks. Measured on one core where the weights do not fit the caches: 1.3 to 1.6
times as fast with 8 to 32 rows, as fast with one row or hundreds. oneDNN's own blocks are as fast,
but a quarter slower with one row. Sums are the same but for their order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_WIDEST, _NARROWEST = 256, 96  # outputs of a block
_STEP = 16  # floats that are read at once


class BlockedLinear(nn.Module):
    """A linear layer with `weight` [outputs, inputs] in blocks."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.outputs, inputs = weight.shape
        self.width = block_width(self.outputs)
        self.count = -(-self.outputs // self.width)
        blocks = self._filled(weight.detach()).view(self.count, self.width, inputs)
        self.blocks = blocks.transpose(1, 2).contiguous()
        self.bias: Tensor | None = None
        if bias is not None:
            self.bias = self._filled(bias.detach()).view(self.count, 1, self.width)

    def forward(self, given: Tensor) -> Tensor:
        rows = given.reshape(1, -1, given.shape[-1]).expand(self.count, -1, -1)
        if self.bias is None:
            made = torch.bmm(rows, self.blocks)
        else:
            made = torch.baddbmm(self.bias, rows, self.blocks)
        made = made.transpose(0, 1).flatten(1)[:, : self.outputs]
        return made.reshape(*given.shape[:-1], self.outputs)

    def _filled(self, tensor: Tensor) -> Tensor:
        """With zeros for the outputs that the last block lacks."""
        lacking = self.count * self.width - self.outputs
        if not lacking:
            return tensor
        return torch.cat((tensor, tensor.new_zeros(lacking, *tensor.shape[1:])))


class BlockedEmbedding(nn.Module):
    """Rows of the matrix of a linear layer, by token."""

    def __init__(self, linear: BlockedLinear) -> None:
        super().__init__()
        self._blocks = linear.blocks.transpose(1, 2)
        self._width = linear.width

    def forward(self, ids: Tensor) -> Tensor:
        return self._blocks[ids // self._width, ids % self._width]


def block_width(outputs: int) -> int:
    """Of blocks that divide `outputs`, the widest there may be; else one that leaves little."""
    for width in range(_WIDEST, _NARROWEST - 1, -_STEP):
        if outputs % width == 0:
            return width
    share = -(-outputs // -(-outputs // _WIDEST))
    return -(-share // _STEP) * _STEP


def block(model: Any, *, embeds: bool) -> None:
    """Block the linear layers of `model` that are on a CPU in float32, one after another.

    Where a head has the weight of the embedding, the embedding reads the head's blocks. One that
    does more than read stays, and with it the head, unless the stage never `embeds`.
    """
    tables = {
        id(part.weight): name
        for name, part in model.named_modules()
        if isinstance(part, nn.Embedding)
    }
    for name, linear in list(model.named_modules()):
        # Not their subclasses: what these add would be lost.
        if type(linear) not in (nn.Linear, Conv1D) or not _gains(linear.weight):
            continue
        table = tables.get(id(linear.weight))
        if table is None:
            model.set_submodule(name, _blocked(linear))
        elif not embeds or type(model.get_submodule(table)) is nn.Embedding:
            made = _blocked(linear)
            model.set_submodule(name, made)
            model.set_submodule(table, BlockedEmbedding(made))


def _gains(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def _blocked(linear: Any) -> BlockedLinear:
    weight = linear.weight.detach()
    return BlockedLinear(weight.t() if type(linear) is Conv1D else weight, linear.bias)
