"""Finds out what pods that do not start wait for, where nothing says so but the objects themselves.

Nobody tells when a Secret comes or goes (secrets.py says why), so it is asked for by name, and only
for a pod that has had a node for a while and has no container yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from stageline_operator import names, secrets
from stageline_operator.cache import Child, Key
from stageline_operator.cluster import Cluster, Gone, Refused
from stageline_operator.kinds import CONFIG_MAP, POD, SECRET, Object
from stageline_operator.mounts import is_unmade, lack, needs
from stageline_operator.observed import Observed
from stageline_operator.rotation import HOLDERS

_MOST_PODS: Final = 8
"""Looked at each time: the pods of a resource mostly wait for the same."""


class Missing:
    """What the pods of every resource lack."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._since: dict[Key, float] = {}
        self._lacks: dict[Key, dict[str, str]] = {}

    def of(self, key: Key) -> Mapping[str, str]:
        """What pods of a resource wait for, in a sentence, by the pod's name."""
        return self._lacks.get(key, {})

    async def look(self, key: Key, observed: Observed | None, now: float) -> None:
        """Ask for it where that is due. Busy."""
        unmade = _unmade(observed) if observed is not None else []
        if not unmade:
            self._since.pop(key, None)
            self._lacks.pop(key, None)
        elif now >= self._since.setdefault(key, now) + secrets.STUCK_SECONDS:
            self._lacks[key] = await self._asked(key, unmade[:_MOST_PODS])
            self._since[key] = now

    def wait(self, key: Key, now: float) -> float | None:
        """Seconds until it is to be asked for again."""
        since = self._since.get(key)
        return None if since is None else max(since + secrets.STUCK_SECONDS - now, 0.0)

    async def _asked(self, key: Key, pods: Iterable[str]) -> dict[str, str]:
        known: dict[Child, Object | None] = {}
        lacks = {}
        for name in pods:
            pod = await self._get(key, (POD, name))
            for need in needs(pod) if pod is not None else ():
                child = (need.kind, need.name)
                if child in _made_by_us(key):
                    continue
                if child not in known:
                    try:
                        known[child] = await self._get(key, child)
                    except Refused:  # whether it is there is not for us to know
                        continue
                if sentence := lack(need, key.namespace, known[child]):
                    lacks[name] = sentence
                    break
        return lacks

    async def _get(self, key: Key, child: Child) -> Object | None:
        try:
            return await self._cluster.get(child[0], key.namespace, child[1])
        except Gone:
            return None


def _unmade(observed: Observed) -> list[str]:
    pods = {**observed.of(POD), **observed.router_pods}
    return sorted(name for name, pod in pods.items() if is_unmade(pod))


def _made_by_us(key: Key) -> frozenset[Child]:
    """Nobody else needs to make these: they are brought back as soon as they are missed."""
    certificates = (names.certificate(key.name, role) for role in HOLDERS)
    ours = ((SECRET, name) for name in certificates)
    return frozenset((*ours, (CONFIG_MAP, names.router(key.name))))
