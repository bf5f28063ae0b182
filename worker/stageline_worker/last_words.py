"""What a container says as it ends: its termination message, which Kubernetes keeps in the pod."""

from __future__ import annotations

import base64
import zlib
from contextlib import suppress
from pathlib import Path

from stageline_api.profile import ModelProfile

LIMIT = 4096
"""Bytes: Kubernetes cuts the message off there."""


def leave(log: Path | None, message: str) -> None:
    """Write the message, cut to what Kubernetes keeps, if there is a place for it."""
    if log is None:
        return
    # The same words are on stderr, and a place that cannot be written must not hide them.
    with suppress(OSError):
        log.write_text(message.encode()[:LIMIT].decode(errors="ignore"))


def packed(profile: ModelProfile) -> str:
    """base64(zlib(JSON)) of the profile; ValueError, a sentence, when it is too long to be kept."""
    text = profile.model_dump_json(exclude_defaults=True)
    message = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    if len(message) > LIMIT:
        raise ValueError(
            f"the profile of this {profile.architecture} takes {len(message):,} bytes and a "
            f"termination message holds {LIMIT:,}: {len(profile.units)} runs of layers differ"
        )
    return message
