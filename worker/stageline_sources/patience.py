"""How long a server asks to be left alone: the Retry-After of its answer (RFC 9110, 10.2.3)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def asked_seconds(header: str, now: datetime) -> float | None:
    """Seconds from `now`; None where the header is missing, or neither a number nor a date."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    # A date in no zone (-0000) is one in UTC.
    until = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    return max(0.0, (until - now).total_seconds())
