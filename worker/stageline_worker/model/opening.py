"""A model wherever it is: its checkpoint to look at, and a reader for its tensors."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stageline_sources import PartCache, Reader, SourceError, is_remote, open_source
from stageline_worker.model.checkpoint import Checkpoint, open_checkpoint
from stageline_worker.model.errors import CheckpointError, ModelError
from stageline_worker.model.reader import Progress, TensorReader, UnitReader
from stageline_worker.model.remote import RemoteTensorReader
from stageline_worker.model.shadow import cast_shadow, kept_shadow


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A checkpoint, `commit` as its source names it ("" where it does not), and what makes a
    reader of its tensors, given the bytes in all and whom to tell of the progress."""

    checkpoint: Checkpoint
    commit: str
    reader: Callable[[int, Progress], UnitReader]


@contextmanager
def opened(uri: str, cache: PartCache | None = None) -> Iterator[OpenModel]:
    """The model at `uri`: a path, file://, hf:// or s3://. Raises ModelError, in the block too.

    `cache` keeps what comes over a network, and gives what it has.
    """
    if not is_remote(uri):
        yield OpenModel(open_checkpoint(uri), "", TensorReader)
        return
    with _scratch(uri) as folder:
        try:
            reader = Reader(open_source(uri))
            files = kept_shadow(reader, folder, cache) if cache else cast_shadow(reader, folder)
            yield OpenModel(
                open_checkpoint(str(folder)),
                reader.source.commit,
                lambda total, progress: RemoteTensorReader(reader, files, total, progress, cache),
            )
        except SourceError as error:
            raise CheckpointError(str(error)) from None
        except ModelError as error:
            raise type(error)(str(error).replace(str(folder), uri)) from None


@contextmanager
def _scratch(uri: str) -> Iterator[Path]:
    try:
        place = tempfile.TemporaryDirectory(prefix="stageline-")
    except OSError as error:
        raise CheckpointError(
            f"{uri}: its headers cannot be kept in {tempfile.gettempdir()}: {error.strerror}"
        ) from None
    with place as folder:
        yield Path(folder).resolve()
