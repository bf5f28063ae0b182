"""The router's document on disk: read at the start, read again when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import ValidationError

from stageline_api.documents import RouterDocument
from stageline_wire.logs import log

_INTERVAL = 1.0  # seconds between two looks


class DocumentError(Exception):
    """The file cannot be read as a router document; the message says why."""


def read_document(path: Path) -> RouterDocument:
    """Raises DocumentError."""
    try:
        return RouterDocument.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise DocumentError(f"{path} is no router document: {wrong}") from None


async def changes(path: Path, current: RouterDocument) -> AsyncIterator[RouterDocument]:
    """Each new version of the document. One that is broken is logged, and the old one stays."""
    complaint = ""
    while True:
        await asyncio.sleep(_INTERVAL)
        try:
            found = read_document(path)
        except DocumentError as error:
            if str(error) != complaint:
                complaint = str(error)
                log("document_refused", reason=complaint)
            continue
        complaint = ""
        if found != current:
            current = found
            yield found
