"""Why a file of a model cannot be had.

SourceError     for good, until somebody changes something: the message is a sentence for a person
Interruption    for now: the same request may well be answered in a moment
"""

from __future__ import annotations


class SourceError(Exception):
    """The source does not give the file; the message says which, why, and what to do."""


class Interruption(Exception):
    """The source did not answer, or not to the end. `wait` is the time in seconds that it asks
    for before the next try, None when it names none."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait
