"""Who may do what on a pipeline's inner port, by the name in a certificate: pure.

A resource has an authority of its own, which vouches for nobody else: a certificate need only say
what its holder is. Every stage has the same name, whichever pod it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

Role = Literal["stage", "router", "operator"]

ROLES: Final[tuple[Role, ...]] = ("stage", "router", "operator")
_MAY: Final[dict[str, frozenset[Role]]] = {
    "/stageline.v1.Relay/Link": frozenset({"stage"}),
    "/stageline.v1.Control/Attach": frozenset({"stage"}),
    "/stageline.v1.Pipeline/Serve": frozenset({"router"}),
    "/stageline.v1.Pipeline/Watch": frozenset({"router", "operator"}),
    "/stageline.v1.Pipeline/Trace": frozenset({"router", "operator"}),
    "/grpc.health.v1.Health/Check": frozenset(ROLES),
    "/grpc.health.v1.Health/Watch": frozenset(ROLES),
}


def server_name(role: Role) -> str:
    """The DNS name in the certificates of a role: what whoever dials it must find there."""
    return f"{role}.stageline"


def roles(names: Iterable[str]) -> frozenset[Role]:
    """What the holder of a certificate with these DNS names is."""
    found = set(names)
    return frozenset(role for role in ROLES if server_name(role) in found)


def objection(method: str, held: Iterable[Role]) -> str | None:
    """Why a holder of these roles may not call `method`, a sentence; None when it may."""
    if _MAY.get(method, frozenset()) & set(held):
        return None
    who = " and ".join(sorted(held)) or "nobody that is known"
    return f"the certificate is that of {who}, which may not call {method}"
