"""Which namespaces operators of their own serve, as their Leases tell. Pure.

A Lease that was let go counts for as long as one that is not renewed: its operator may come back,
as it does in every update of its release, and in between nobody needs another's image or settings.
"""

from __future__ import annotations

from stageline_operator import lease
from stageline_operator.kinds import Object
from stageline_operator.lease import Unchanged


class Elsewhere:
    """Seen by one that serves all namespaces; all times are of its own clock, in seconds."""

    def __init__(self) -> None:
        self._leases: dict[str, Object] = {}
        self._unchanged = Unchanged()

    def heard(self, found: Object, now: float, *, is_gone: bool = False) -> None:
        """A Lease is so, or has been deleted."""
        namespace = found["metadata"]["namespace"]
        seen = {"metadata": found["metadata"]} if is_gone else found
        if namespace in self._leases or lease.holder(seen):
            self._leases[namespace] = seen
            self._unchanged.seconds(namespace, lease.beat(seen), now)

    def listed(self, found: list[Object], now: float) -> None:
        """These are all Leases that there are."""
        there = {each["metadata"]["namespace"] for each in found}
        for each in found:
            self.heard(each, now)
        for namespace in self._leases.keys() - there:
            self.heard(self._leases[namespace], now, is_gone=True)

    def namespaces(self, now: float) -> dict[str, str]:
        """Those that are served elsewhere, each with who does or did last, if that is known."""
        return {
            namespace: lease.holder(seen)
            for namespace, seen in self._leases.items()
            if self._unchanged.seconds(namespace, lease.beat(seen), now) < lease.duration(seen)
        }
