"""Links between stages: the seam, with sockets and gRPC behind it."""

from stageline_worker.transport.seam import (
    Accept,
    Inlet,
    LinkEnded,
    LinkError,
    LinkRefused,
    LinkUnreached,
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
    "LinkUnreached",
    "Outlet",
    "Refusals",
    "Transport",
]
