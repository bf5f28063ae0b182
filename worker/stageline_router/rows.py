"""The rows of a request, and how rows of several requests become the tensors of a microbatch.

Tensors are bytes here, batch first and row-major, so a run of rows is a run of bytes: joining and
cutting need no arithmetic on elements.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np

from stageline_wire import DATATYPES, TensorView

Outputs = tuple[str, ...] | None


class Rows(Protocol):
    """What one request brings to microbatches."""

    @property
    def count(self) -> int: ...

    @property
    def key(self) -> Hashable:
        """Rows with equal keys may stand in one microbatch."""
        ...

    @property
    def outputs(self) -> Outputs: ...

    def cut(self, first: int, end: int) -> Rows: ...

    def join(self, others: Sequence[Rows]) -> tuple[TensorView, ...]:
        """The tensors of these rows and, after them, of others with the same key."""
        ...


@dataclass(frozen=True, slots=True)
class TensorRows:
    """Rows of model inputs, as a client sent them."""

    tensors: tuple[TensorView, ...]
    outputs: Outputs

    @property
    def count(self) -> int:
        return self.tensors[0].shape[0]

    @property
    def key(self) -> Hashable:
        shapes = sorted((t.name, t.datatype.name, t.shape[1:]) for t in self.tensors)
        return (self.outputs, tuple(shapes))

    def cut(self, first: int, end: int) -> TensorRows:
        return TensorRows(cut_rows(self.tensors, first, end), self.outputs)

    def join(self, others: Sequence[Rows]) -> tuple[TensorView, ...]:
        every = [self.tensors, *(rows.join([]) for rows in others)]
        return join_rows(every) if others else self.tensors


@dataclass(frozen=True, slots=True)
class TextRows:
    """Tokenised texts of any length; `optional` names the inputs that go beside their ids."""

    texts: tuple[tuple[int, ...], ...]
    pad: int
    optional: tuple[str, ...]
    outputs: Outputs

    @property
    def count(self) -> int:
        return len(self.texts)

    @property
    def key(self) -> Hashable:
        return ("text", self.outputs)

    def cut(self, first: int, end: int) -> TextRows:
        return TextRows(self.texts[first:end], self.pad, self.optional, self.outputs)

    def join(self, others: Sequence[Rows]) -> tuple[TensorView, ...]:
        texts = list(self.texts)
        texts += chain.from_iterable(rows.texts for rows in others if isinstance(rows, TextRows))
        longest = max(map(len, texts))
        ids = np.full((len(texts), longest), self.pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        beside = {"attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        made = {"input_ids": ids, **{name: beside[name] for name in self.optional}}
        return tuple(_view(name, array) for name, array in made.items())


def join_rows(parts: Sequence[Sequence[TensorView]]) -> tuple[TensorView, ...]:
    """One below the other: tensors of the same names and trailing shapes."""
    if len(parts) == 1:
        return tuple(parts[0])
    by_name: Sequence[Mapping[str, TensorView]] = [{t.name: t for t in part} for part in parts]
    return tuple(
        TensorView(
            tensor.name,
            tensor.datatype,
            (sum(part[tensor.name].shape[0] for part in by_name), *tensor.shape[1:]),
            b"".join(part[tensor.name].data for part in by_name),
        )
        for tensor in parts[0]
    )


def cut_rows(tensors: Sequence[TensorView], first: int, end: int) -> tuple[TensorView, ...]:
    """Rows [first, end) of each tensor, as views of the same bytes."""
    return tuple(_cut(tensor, first, end) for tensor in tensors)


def _cut(tensor: TensorView, first: int, end: int) -> TensorView:
    row = tensor.size // tensor.shape[0]
    data = memoryview(tensor.data).cast("B")[first * row : end * row]
    return TensorView(tensor.name, tensor.datatype, (end - first, *tensor.shape[1:]), data)


def _view(name: str, array: np.ndarray) -> TensorView:
    return TensorView(name, DATATYPES["INT64"], array.shape, array.tobytes())
