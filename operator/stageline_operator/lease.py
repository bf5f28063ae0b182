"""A Lease (coordination.k8s.io/v1): who holds it, and what it takes to hold it. Pure.

Clocks of two machines are not compared: a holder is gone when its Lease has not changed for as long
as the Lease itself says, by the clock of whoever waits (as client-go's leaderelection does).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from stageline_operator.kinds import Object

NAME: Final = "stageline-operator"
DURATION_SECONDS: Final = 15
RENEW_SECONDS: Final = 5.0


def holder(lease: Object) -> str:
    """Who holds it; empty when nobody does."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def duration(lease: Object) -> float:
    """Seconds without a change after which its holder is gone."""
    return float((lease.get("spec") or {}).get("leaseDurationSeconds") or DURATION_SECONDS)


def held(lease: Object | None, identity: str, now: datetime) -> dict[str, Any]:
    """Its spec once `identity` holds it; None where there is no Lease yet."""
    before = (lease or {}).get("spec") or {}
    time = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    goes_on = lease is not None and holder(lease) == identity
    passed_on = lease is not None and not goes_on
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": time,
        "acquireTime": before.get("acquireTime", time) if goes_on else time,
        "leaseTransitions": int(before.get("leaseTransitions") or 0) + passed_on,
    }
