"""From an address to the source that it is of."""

from __future__ import annotations

from stageline_api.uri import check_uri
from stageline_sources.errors import SourceError
from stageline_sources.source import Source

_REMOTE = ("hf", "s3")


def is_remote(uri: str) -> bool:
    """Whether `uri` is of a model that comes over the network."""
    return uri.partition("://")[0] in _REMOTE


def open_source(uri: str) -> Source:
    """The source of a remote `uri`; nothing is asked of it yet. Raises SourceError."""
    try:
        check_uri(uri)
    except ValueError as error:
        raise SourceError(f"the model's address {error}") from None
    # Each brings a client of its own, of which a process needs one at most.
    if uri.startswith("s3://"):
        from stageline_sources.s3 import S3

        return S3(uri)
    from stageline_sources.hub import Hub

    return Hub(uri)
