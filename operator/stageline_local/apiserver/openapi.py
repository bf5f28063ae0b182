"""The OpenAPI documents by which kubectl explains kinds, and learns that we check fields."""

from __future__ import annotations

from stageline_local.apiserver.kinds import Object
from stageline_local.apiserver.registry import Registry


def answer(registry: Registry, path: str) -> Object | None:
    """The document at `path`; None if it is no path of these."""
    return None
