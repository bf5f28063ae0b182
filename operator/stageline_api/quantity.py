"""Kubernetes quantities (80Gi, 500m) and durations (2ms, 1m30s): read them, print bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

QUANTITY_PATTERN = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
DURATION_PATTERN = r"^([0-9]{1,9}(\.[0-9]{1,9})?(us|ms|s|m|h)){1,5}$"

QUANTITY_SENTENCE = "write a number and a unit, for example 80Gi, 1.5G or 500m"
DURATION_SENTENCE = "write a number and a unit, for example 2ms, 1.5s or 1m30s"
LONGEST = 64
_SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "": Fraction(1),
    **{suffix: Fraction(1000 ** (power + 1)) for power, suffix in enumerate("kMGTPE")},
    **{f"{suffix}i": Fraction(1024 ** (power + 1)) for power, suffix in enumerate("KMGTPE")},
}
_UNITS = {
    "us": Fraction(1, 1000),
    "ms": Fraction(1),
    "s": Fraction(1000),
    "m": Fraction(60_000),
    "h": Fraction(3_600_000),
}
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@lru_cache(maxsize=512)
def parse_quantity(text: str) -> Fraction:
    """The exact number that a Kubernetes quantity stands for; ValueError says what is wrong."""
    match = re.fullmatch(QUANTITY_PATTERN, text) if len(text) <= LONGEST else None
    if match is None:
        raise ValueError(f"is not a Kubernetes quantity: {text[:LONGEST]!r}; {QUANTITY_SENTENCE}")
    number, suffix = Fraction(match[1]), match[3] or ""
    if suffix[0:1] in ("e", "E") and len(suffix) > 1 and suffix != "Ei":
        return number * Fraction(10) ** int(suffix[1:])
    return number * _SUFFIXES[suffix]


def quantity_bytes(text: str) -> int:
    """Whole bytes of a quantity, rounded down."""
    return math.floor(parse_quantity(text))


@lru_cache(maxsize=512)
def parse_duration(text: str) -> float:
    """Milliseconds of a duration such as 2ms or 1m30s; ValueError says what is wrong."""
    if len(text) > LONGEST or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"is not a duration: {text[:LONGEST]!r}; {DURATION_SENTENCE}")
    parts = re.findall(r"([0-9.]+)(us|ms|s|m|h)", text)
    return float(sum(Fraction(number) * _UNITS[unit] for number, unit in parts))


def format_bytes(count: int) -> str:
    """Bytes as people read them: 31.2 GiB, 80 GiB, 512 MiB; rounded down."""
    return _format(count, math.floor)


def format_bytes_up(count: int) -> str:
    """Bytes as people read them, rounded up: what is needed is never said too low."""
    return _format(count, math.ceil)


def _format(count: int, rounded: Callable[[Fraction], int]) -> str:
    power = min(max(count.bit_length() - 1, 0) // 10, len(_BINARY_UNITS) - 1)
    tenths = rounded(Fraction(count * 10, 1024**power))
    number = f"{tenths / 10:.1f}".removesuffix(".0")
    return f"{number} {_BINARY_UNITS[power]}"
