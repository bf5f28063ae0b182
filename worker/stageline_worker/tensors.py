"""torch tensors to and from the bytes of a frame, without a copy on either side."""

from __future__ import annotations

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
_DATATYPES = {dtype: DATATYPES[name] for name, dtype in DTYPES.items()}

# torch warns once a process that a buffer is read-only. Nobody else reads a received frame, so a
# stage that writes into it harms no one; the warning is spent here.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.frombuffer(bytes(1), dtype=torch.uint8)


def to_view(name: str, tensor: Tensor) -> TensorView:
    """The tensor's own memory (on the CPU and contiguous, else a copy that is)."""
    try:
        data = tensor.numpy().data.cast("B")
    except (TypeError, RuntimeError, ValueError):  # asked first, each would cost as much as this
        data = _memory(tensor.detach().to("cpu").contiguous())
    return TensorView(name, _DATATYPES[tensor.dtype], tensor.shape, data)


def from_view(view: TensorView) -> Tensor:
    """A tensor over the view's bytes, which stay alive as long as the tensor."""
    dtype = DTYPES[view.datatype.name]
    if not len(view.data):
        return torch.empty(view.shape, dtype=dtype)
    tensor = torch.frombuffer(view.data, dtype=dtype)
    return tensor if len(view.shape) == 1 else tensor.view(view.shape)


def _memory(tensor: Tensor) -> memoryview:
    """Of a tensor that numpy cannot show as it is: it knows no bfloat16."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
