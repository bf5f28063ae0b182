"""The operator's log: one line a story, with the key of the resource that it is about."""

from __future__ import annotations

import json
import logging
import time
from typing import Final

_CHATTER: Final = ("kopf", "kubernetes", "client", "aiohttp", "asyncio", "grpc")
"""What libraries tell of their own doings is shown from WARNING on."""


class TextFormatter(logging.Formatter):
    """2026-01-31T12:00:00.000Z INFO reconcile default/llama: made Service llama"""

    def format(self, record: logging.LogRecord) -> str:
        key = getattr(record, "key", "")
        about = f" {key}" if key else ""
        name = record.name.rpartition(".")[2]
        line = f"{_time(record)} {record.levelname} {name}{about}: {record.getMessage()}"
        return line + _trace(self, record)


class JsonFormatter(logging.Formatter):
    """The same as one JSON object a line: time, level, logger, key, message, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if key := getattr(record, "key", ""):
            line["key"] = key
        if trace := _trace(self, record):
            line["exception"] = trace.strip()
        return json.dumps(line)


def configure(log_format: str, level: str) -> None:
    """Log to stderr from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.WARNING)


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info else ""
