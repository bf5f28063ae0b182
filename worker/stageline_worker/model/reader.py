"""Bytes of tensors from files, in pieces, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import torch
from torch import Tensor

from stageline_worker.model.checkpoint import StoredTensor, open_exactly
from stageline_worker.model.errors import CheckpointError

Progress = Callable[[int, int], None]

_CHUNK = 16 << 20
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class UnitReader(Protocol):
    """What reads tensors, from files or over a network."""

    def units(self, groups: Iterable[list[StoredTensor]]) -> Iterator[dict[str, Tensor]]:
        """The tensors of each group, by name, in their stored dtype, on the CPU."""

    def close(self) -> None:
        """Let go of what is open."""


class TensorReader:
    """Reads tensors with plain reads, not a memory map: what is read is in memory, a file that
    shrinks is an error and not a signal, and every byte can be reported."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        progress(0, total)

    def units(self, groups: Iterable[list[StoredTensor]]) -> Iterator[dict[str, Tensor]]:
        """The tensors of each group, by name, in their stored dtype, on the CPU."""
        for group in groups:
            yield {stored.name: self._read(stored) for stored in group}

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            self._file.close()
        self._file = self._path = None

    def _read(self, stored: StoredTensor) -> Tensor:
        data = empty_bytes(stored)
        file = self._open(stored.file)
        file.seek(stored.offset)
        view = data.numpy().data
        for start in range(0, stored.size, _CHUNK):
            self._read_into(file, view[start : start + _CHUNK], stored)
        return in_its_dtype(data, stored)

    def _read_into(self, file: BinaryIO, view: memoryview, stored: StoredTensor) -> None:
        while view:
            count = file.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise CheckpointError(f"{stored.file.name} ended in the middle of {stored.name}")
            self._done += count
            self._progress(self._done, self._total)
            view = view[count:]

    def _open(self, path: Path) -> BinaryIO:
        if self._file is None or path != self._path:
            self.close()
            self._path = path
            self._file = open_exactly(path)
        return self._file


def empty_bytes(stored: StoredTensor) -> Tensor:
    """Memory for a tensor's bytes, uint8 [size]."""
    return torch.empty(stored.size, dtype=torch.uint8)


def in_its_dtype(data: Tensor, stored: StoredTensor) -> Tensor:
    """Bytes as the tensor that they are."""
    return data.view(DTYPES[stored.dtype]).view(stored.shape)
