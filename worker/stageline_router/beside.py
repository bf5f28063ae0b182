"""Small files that lie beside a model's weights, wherever these are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from stageline_sources import Reader, SourceError, is_remote, open_source


def read_beside(uri: str, name: str, limit: int) -> bytes | None:
    """The file of the model at `uri` (a folder, file://, hf:// or s3://); None when it has none.

    Raises ValueError, a sentence, when it cannot be had, or comes from afar with more bytes than
    `limit`.
    """
    if not is_remote(uri):
        folder = unquote(urlsplit(uri).path) if uri.startswith("file://") else uri
        path = Path(folder) / name
        return path.read_bytes() if path.is_file() else None
    try:
        return Reader(open_source(uri)).whole(name, limit)
    except SourceError as error:
        raise ValueError(str(error)) from None
