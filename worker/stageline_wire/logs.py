"""How worker and router log: one line per decision, an event and key=value pairs.

Nothing is logged per microbatch or per request.
"""

from __future__ import annotations

import logging
import sys

_logger = logging.getLogger("stageline")


def log(event: str, **fields: object) -> None:
    """Write one line; values with spaces are quoted."""
    _logger.info("%s", " ".join([event, *(f"{key}={_value(v)}" for key, v in fields.items())]))


def to_stderr() -> None:
    """Send the lines of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = " ".join(str(value).split())
    return '"' + text.replace('"', "'") + '"' if " " in text or not text else text
