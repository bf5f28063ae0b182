"""Tensors over the network, straight into their memory, and none but those asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from torch import Tensor

from stageline_sources import Part, PartCache, Piece, Reader, RemoteFile, Span, pieces
from stageline_worker.model.checkpoint import StoredTensor
from stageline_worker.model.reader import Progress, empty_bytes, in_its_dtype

_AT_ONCE = 8


class _Started(NamedTuple):
    """Tensors of which these bytes are on their way, and which the cache had not."""

    tensors: dict[str, Tensor]
    asked: list[Future[None]]
    missed: list[tuple[Part, memoryview]]


class RemoteTensorReader:
    """Reads tensors unit by unit in ranges, several at once. While one unit is converted the next
    is on its way, so two units are in memory beside the model.

    What `cache` has is not asked for, and what comes is kept there, tensor by tensor: a tensor is
    the same wherever the model is cut.
    """

    def __init__(
        self,
        reader: Reader,
        files: Mapping[Path, RemoteFile],
        total: int,
        progress: Progress,
        cache: PartCache | None = None,
    ) -> None:
        self._reader = reader
        self._files = files
        self._cache = cache
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
                yield self._finished(started.popleft())
        while started:
            yield self._finished(started.popleft())

    def close(self) -> None:
        """End what is still on its way."""
        self._reader.stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _start(self, group: list[StoredTensor]) -> _Started:
        data = [empty_bytes(stored) for stored in group]
        memory = [flat.numpy().data for flat in data]
        missed = self._missed(group, memory)
        spans = [Span(part.file, part.begin, view) for part, view in missed]
        asked = [self._pool.submit(self._read, piece) for piece in pieces(spans)]
        tensors = {
            stored.name: in_its_dtype(flat, stored)
            for stored, flat in zip(group, data, strict=True)
        }
        return _Started(tensors, asked, missed)

    def _missed(
        self, group: list[StoredTensor], memory: list[memoryview]
    ) -> list[tuple[Part, memoryview]]:
        """Those whose memory the cache has not filled."""
        wanted = list(zip(map(self._part, group), memory, strict=True))
        if self._cache is None:
            return wanted
        # Looked for here, since in the pool it would wait for what is being downloaded.
        there = [one for one in wanted if one[0].version and self._cache.has(one[0])]
        hits = self._pool.map(self._hit, there)
        had = {part for (part, _), hit in zip(there, hits, strict=True) if hit}
        return [one for one in wanted if one[0] not in had]

    def _part(self, stored: StoredTensor) -> Part:
        file = self._files[stored.file]
        end = stored.offset + stored.size
        return Part(self._reader.source.place, file.name, file.version, stored.offset, end)

    def _hit(self, wanted: tuple[Part, memoryview]) -> bool:
        assert self._cache is not None
        part, memory = wanted
        hit = self._cache.read_into(part, memory)
        if hit:
            self._count(len(memory))
        return hit

    def _finished(self, started: _Started) -> dict[str, Tensor]:
        for done in wait(started.asked, return_when=FIRST_EXCEPTION).done:
            done.result()
        if self._cache is not None:
            for part, memory in started.missed:
                if part.version:
                    self._cache.keep(part, memory)
        return started.tensors

    def _read(self, piece: Piece) -> None:
        self._reader.read_into(piece, self._versions[piece.file], self._count)

    def _count(self, count: int) -> None:
        with self._counting:
            self._done += count
            self._progress(self._done, self._total)
