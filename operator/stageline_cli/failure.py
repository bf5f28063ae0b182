"""The one error of the command line."""

from __future__ import annotations


class Failure(Exception):
    """What a command could not do: one sentence a line, for stderr, before exit code 1."""
