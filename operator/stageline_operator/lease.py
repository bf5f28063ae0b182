"""A Lease (coordination.k8s.io/v1): who holds it, how it is held, who else wants it. Pure.

Clocks of two machines are not compared: a holder is gone when its Lease has not changed for as long
as the Lease itself says, by the clock of whoever waits (as client-go's leaderelection does).

Whoever waits for a Lease that an operator of another release holds leaves a mark on it, an
annotation that it renews as a holder renews the Lease. So the holder learns of it, and can say so.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime
from typing import Any, Final

from stageline_operator.kinds import Object

NAME: Final = "stageline-operator"
"""Of the Lease in each namespace that an operator of some namespaces serves."""
NAME_OF_ALL: Final = "stageline-operator-cluster"
"""Of the one Lease of an operator of all: another name, or one could not be beside one of some."""
CONTENDER: Final = "stageline.dev/contender"
"""Annotation: who waits for it, and when that was written."""
DURATION_SECONDS: Final = 15
RENEW_SECONDS: Final = 5.0


class Unchanged:
    """For how long things have been as they are, by the clock of whoever looks at them."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[str, float]] = {}

    def seconds(self, thing: Hashable, value: str, now: float) -> float:
        """Since this value of the thing was seen first; a look that is made now counts."""
        before, since = self._seen.get(thing, (None, now))
        if value != before:
            self._seen[thing] = (value, now)
            return 0.0
        return now - since


def holder(lease: Object) -> str:
    """Who holds it; empty when nobody does."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def beat(lease: Object) -> str:
    """What changes whenever its holder renews it, and not when a mark is left; empty: no holder."""
    spec = lease.get("spec") or {}
    return f"{holder(lease)} {spec.get('renewTime')}" if holder(lease) else ""


def duration(lease: Object) -> float:
    """Seconds without a change after which its holder is gone."""
    return float((lease.get("spec") or {}).get("leaseDurationSeconds") or DURATION_SECONDS)


def held(lease: Object | None, identity: str, now: datetime) -> dict[str, Any]:
    """Its spec once `identity` holds it; None where there is no Lease yet."""
    before = (lease or {}).get("spec") or {}
    time = _time(now)
    goes_on = lease is not None and holder(lease) == identity
    passed_on = bool(before) and not goes_on
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": time,
        "acquireTime": before.get("acquireTime", time) if goes_on else time,
        "leaseTransitions": int(before.get("leaseTransitions") or 0) + passed_on,
    }


def mark(lease: Object) -> str:
    """The mark of who waits for it; empty when there is none."""
    return str((lease["metadata"].get("annotations") or {}).get(CONTENDER) or "")


def marked(identity: str, now: datetime) -> str:
    """The mark of `identity`, left now."""
    return f"{identity} {_time(now)}"


def marked_by(text: str) -> str:
    """Whose mark it is."""
    return text.partition(" ")[0]


def release_of(identity: str) -> str:
    """The release that an operator was installed by, namespace/name; empty when it was not."""
    return identity.rpartition("/")[0]


def are_of_one_release(one: str, other: str) -> bool:
    """Two replicas, or an old and a new pod of an update: the one that waits is as it should be."""
    return one == other or release_of(one) == release_of(other) != ""


def conflict(serves: str, waits: str) -> str:
    """That two operators want the same, and what to do, in a sentence."""
    return (
        f"{_called(waits)} wants to serve this namespace too, and stands by as long as "
        f"{_called(serves)} does: uninstall one of the two"
    )


def _called(identity: str) -> str:
    """By its release, which stays the same whatever becomes of its pod."""
    release = release_of(identity)
    return f"the operator of release {release}" if release else f"operator {identity}"


def _time(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
