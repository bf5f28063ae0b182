"""Where the files of a model come from when they are not in a folder: hf:// and s3://.

Read by worker and router alike, so neither torch nor gRPC is needed here.
"""

from __future__ import annotations

from stageline_sources.cache import Part, PartCache
from stageline_sources.errors import SourceError
from stageline_sources.locating import is_remote, open_source
from stageline_sources.ranges import Piece, Span, pieces
from stageline_sources.reading import Reader, RemoteFile
from stageline_sources.source import Source

__all__ = [
    "Part",
    "PartCache",
    "Piece",
    "Reader",
    "RemoteFile",
    "Source",
    "SourceError",
    "Span",
    "is_remote",
    "open_source",
    "pieces",
]
