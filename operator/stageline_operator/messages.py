"""What pods, images and workers say, fit to stand in a status that others read. Pure.

Messages of pods quote URLs and command lines, and those may carry credentials; status is read by
more people than the pod's Secret is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from stageline_api.status import MAX_MESSAGE

_HIDDEN: Final = "***"
_USERINFO = re.compile(r"(?<=://)[^\s/?#@\"']+@")
_SECRET_PARAMETER = re.compile(
    r"(?i)((?:token|secret|passw(?:or)?d|signature|credential|api[_-]?key|access[_-]?key)"
    r"\s*[=:]\s*|[?&](?:sig|key|auth)=)[^\s&\"',;]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_KNOWN_TOKEN = re.compile(r"\b(?:hf_[A-Za-z0-9]{8,}|AKIA[A-Z0-9]{12,}|gh[pousr]_[A-Za-z0-9]{20,})")


@lru_cache(maxsize=512)  # the same few sentences, again and again
def clean(text: str, limit: int = MAX_MESSAGE) -> str:
    """`text` on one line, without credentials, and at most `limit` characters long."""
    text = " ".join(text[: 8 * limit].split())
    text = _USERINFO.sub(f"{_HIDDEN}@", text)
    text = _BEARER.sub(rf"\1 {_HIDDEN}", text)
    text = _SECRET_PARAMETER.sub(rf"\1{_HIDDEN}", text)
    text = _KNOWN_TOKEN.sub(_HIDDEN, text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def last_line(text: str) -> str:
    """The last line that says anything: of a log's end, that is where the error stands."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def joined(*parts: str) -> str:
    """The parts that say anything, with a colon between them."""
    *first, last = [part.strip() for part in parts if part.strip()] or [""]
    return ": ".join((*(part.rstrip(".:") for part in first), last))
