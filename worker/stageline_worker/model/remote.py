"""Tensors over the network, straight into their memory, and none but those asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock

from torch import Tensor

from stageline_sources import Piece, Reader, RemoteFile, Span, pieces
from stageline_worker.model.checkpoint import StoredTensor
from stageline_worker.model.reader import Progress, empty_bytes, in_its_dtype

_AT_ONCE = 8

_Started = tuple[dict[str, Tensor], list[Future[None]]]


class RemoteTensorReader:
    """Reads tensors unit by unit in ranges, several at once. While one unit is converted the next
    is on its way, so two units are in memory beside the model."""

    def __init__(
        self,
        reader: Reader,
        files: Mapping[Path, RemoteFile],
        total: int,
        progress: Progress,
    ) -> None:
        self._reader = reader
        self._files = files
        self._versions = {file.name: file.version for file in files.values()}
        self._total = total
        self._progress = progress
        self._done = 0
        self._counting = Lock()
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ranges")
        progress(0, total)

    def units(self, groups: Iterable[list[StoredTensor]]) -> Iterator[dict[str, Tensor]]:
        """The tensors of each group, by name, in their stored dtype. Raises SourceError."""
        started: deque[_Started] = deque()
        for group in groups:
            started.append(self._start(group))
            if len(started) > 1:
                yield _finished(started.popleft())
        while started:
            yield _finished(started.popleft())

    def close(self) -> None:
        """End what is still on its way."""
        self._reader.stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _start(self, group: list[StoredTensor]) -> _Started:
        data = [empty_bytes(stored) for stored in group]
        spans = [
            Span(self._files[stored.file].name, stored.offset, flat.numpy().data)
            for stored, flat in zip(group, data, strict=True)
        ]
        asked = [self._pool.submit(self._read, piece) for piece in pieces(spans)]
        tensors = {
            stored.name: in_its_dtype(flat, stored)
            for stored, flat in zip(group, data, strict=True)
        }
        return tensors, asked

    def _read(self, piece: Piece) -> None:
        self._reader.read_into(piece, self._versions[piece.file], self._count)

    def _count(self, count: int) -> None:
        with self._counting:
            self._done += count
            self._progress(self._done, self._total)


def _finished(started: _Started) -> dict[str, Tensor]:
    tensors, asked = started
    for done in wait(asked, return_when=FIRST_EXCEPTION).done:
        done.result()
    return tensors
