"""A resource's own Secrets, read by name, and the operator's certificate, made from one of them.

To list or watch Secrets is a right to read all that there are, so nobody tells when one of ours is
changed or deleted. They are read before the first decision on a resource that has anything, again
every hour, and as soon as a pod waits for what it mounts.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import grpc

from stageline_operator import names
from stageline_operator.authority import issue
from stageline_operator.cache import Cache, Key
from stageline_operator.cluster import Cluster, Gone
from stageline_operator.kinds import CONTROLLER_REVISION, POD, SECRET, Object
from stageline_operator.observed import Observed
from stageline_operator.render import secret_data
from stageline_operator.rotation import HOLDERS, read_authority
from stageline_operator.status import was_seen

EVERY_SECONDS: Final = 3600.0
STUCK_SECONDS: Final = 20.0
"""A pod that has a node starts within this, or something that it needs is not there."""
_BADGE_LIFE: Final = timedelta(days=1)
_STUCK: Final = ("ContainerCreating", "CreateContainerConfigError")


class Secrets:
    """Keeps those of every resource in the cache."""

    def __init__(self, cluster: Cluster, cache: Cache) -> None:
        self._cluster = cluster
        self._cache = cache
        self._due: dict[Key, float] = {}
        self._read: dict[Key, float] = {}

    async def look(self, key: Key, observed: Observed | None, now: float) -> None:
        """Read them where that is due. Any ClusterError but Gone."""
        if observed is None:
            self._forget(key)
        elif are_needed(observed) and now >= self._when(key, observed, now):
            # An authority that nothing rests on yet is no loss: it is made anew.
            if was_seen(observed.resource) or any(observed.children.values()):
                await self._get_all(key, observed, now)
            self._read[key] = now
            self._due[key] = now + EVERY_SECONDS * random.uniform(0.9, 1.1)

    def wait(self, key: Key, observed: Observed | None, now: float) -> float | None:
        """Seconds until they are to be read again."""
        if observed is None or not are_needed(observed):
            return None
        return max(self._when(key, observed, now) - now, 0.0)

    def channel(self, key: Key) -> grpc.ChannelCredentials | None:
        """By which a resource's leaders know the operator, for a day; None without authority."""
        now = datetime.now(UTC)
        found = self._cache.child(key, SECRET, names.authority(key.name))
        authority = read_authority(secret_data(found), now)
        if authority is None:
            return None
        badge = issue(authority.current, "operator", now, _BADGE_LIFE)
        return grpc.ssl_channel_credentials(authority.trusted, badge.key, badge.certificate)

    def _when(self, key: Key, observed: Observed, now: float) -> float:
        due = self._due.get(key, now)
        pods = (*observed.of(POD).values(), *observed.router_pods.values())
        return min(due, self._read.get(key, now) + STUCK_SECONDS) if are_stuck(pods) else due

    async def _get_all(self, key: Key, observed: Observed, now: float) -> None:
        has_authority = await self._get(key, names.authority(key.name), now)
        if has_authority or was_seen(observed.resource):  # else it has no other yet
            for role in HOLDERS:
                await self._get(key, names.certificate(key.name, role), now)

    async def _get(self, key: Key, name: str, now: float) -> bool:
        """Whether there is one."""
        try:
            obj = await self._cluster.get(SECRET, key.namespace, name)
        except Gone:
            self._cache.found_gone(key, SECRET, name)
            return False
        self._cache.answered(key, obj, now)
        return True

    def _forget(self, key: Key) -> None:
        self._due.pop(key, None)
        self._read.pop(key, None)
        self._cache.forget(key, SECRET)


def are_needed(observed: Observed) -> bool:
    """Whether some revision of a resource has certificates, or will."""
    security = (observed.resource.get("spec") or {}).get("security") or {}
    records = observed.of(CONTROLLER_REVISION).values()
    return security.get("tls", "Enabled") == "Enabled" or any(
        (record.get("data") or {}).get("tls") for record in records
    )


def are_stuck(pods: Iterable[Object]) -> bool:
    """Whether a pod has a node, and its container is not made. Of that no kubelet says why."""
    return any(
        (entry.get("state", {}).get("waiting") or {}).get("reason") in _STUCK
        for pod in pods
        if (pod.get("spec") or {}).get("nodeName")
        for entry in (pod.get("status") or {}).get("containerStatuses") or ()
    )
