"""torch tensors to and from the bytes of a frame, without a copy on either side."""

from __future__ import annotations

import ctypes
import warnings

import torch
from torch import Tensor

from stageline_wire import DATATYPES, TensorView

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    "BF16": torch.bfloat16,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# torch warns once a process that a buffer is read-only. Nobody else reads a received frame, so a
# stage that writes into it harms no one; the warning is spent here.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.frombuffer(bytes(1), dtype=torch.uint8)


def to_view(name: str, tensor: Tensor) -> TensorView:
    """The tensor's own memory (on the CPU and contiguous, else a copy that is)."""
    tensor = tensor.detach().to("cpu").contiguous()
    size = tensor.numel() * tensor.element_size()
    datatype = DATATYPES[_NAMES[tensor.dtype]]
    return TensorView(name, datatype, tuple(tensor.shape), _memory(tensor, size))


def from_view(view: TensorView) -> Tensor:
    """A tensor over the view's bytes, which stay alive as long as the tensor."""
    dtype = DTYPES[view.datatype.name]
    if not view.size:
        return torch.empty(view.shape, dtype=dtype)
    return torch.frombuffer(view.data, dtype=dtype).reshape(view.shape)


def _memory(tensor: Tensor, size: int) -> memoryview:
    if not size:
        return memoryview(b"")
    memory = (ctypes.c_ubyte * size).from_address(tensor.data_ptr())
    memory.owner = tensor  # type: ignore[attr-defined]  # keeps the tensor's memory alive
    return memoryview(memory).cast("B")
