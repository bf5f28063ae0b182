"""Links between stages: the seam, and gRPC behind it."""

from stageline_worker.transport.seam import (
    Accept,
    Inlet,
    LinkEnded,
    LinkError,
    LinkRefused,
    Outlet,
    Refusals,
    Transport,
)

__all__ = [
    "Accept",
    "Inlet",
    "LinkEnded",
    "LinkError",
    "LinkRefused",
    "Outlet",
    "Refusals",
    "Transport",
]
