"""Finds out what pods that do not start wait for, where nothing says so but the objects themselves.

Nobody tells when a Secret comes or goes (secrets.py says why), so it is asked for by name, and only
for a pod that has had a node for a while and has no container yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stageline_operator import names, secrets
from stageline_operator.cache import Child, Key
from stageline_operator.cluster import Cluster, Gone, Refused
from stageline_operator.kinds import CONFIG_MAP, POD, SECRET, Object
from stageline_operator.mounts import Need, is_unmade, lack, needs
from stageline_operator.observed import Observed
from stageline_operator.rotation import HOLDERS

Uid = str
_MOST_PODS: Final = 8
"""Looked at each time: the pods of a resource mostly wait for the same."""


class Missing:
    """What the pods of every resource lack."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._since: dict[Key, float] = {}
        self._needs: dict[Key, dict[Uid, tuple[Need, ...]]] = {}
        self._lacks: dict[Key, dict[str, str]] = {}

    def of(self, key: Key) -> Mapping[str, str]:
        """What pods of a resource wait for, in a sentence, by the pod's name."""
        return self._lacks.get(key, {})

    async def look(self, key: Key, observed: Observed | None, now: float) -> None:
        """Ask for it where that is due. Busy."""
        unmade = _unmade(observed) if observed is not None else {}
        if not unmade:
            for known in (self._since, self._needs, self._lacks):
                known.pop(key, None)
        elif now >= self._since.setdefault(key, now) + secrets.STUCK_SECONDS:
            self._needs[key] = await self._needed(key, unmade)
            self._lacks[key] = await self._lacking(key, unmade)
            self._since[key] = now

    def wait(self, key: Key, now: float) -> float | None:
        """Seconds until it is to be asked for again."""
        since = self._since.get(key)
        return None if since is None else max(since + secrets.STUCK_SECONDS - now, 0.0)

    async def _needed(self, key: Key, pods: Mapping[str, Uid]) -> dict[Uid, tuple[Need, ...]]:
        """Of what each pod's volumes are made; a pod is read once, since that cannot change."""
        known, ours, found = self._needs.get(key, {}), _made_by_us(key), {}
        for name, uid in pods.items():
            if (wanted := known.get(uid)) is None:
                pod = await self._get(key, (POD, name))
                wanted = needs(pod) if pod is not None else ()
            found[uid] = tuple(need for need in wanted if (need.kind, need.name) not in ours)
        return found

    async def _lacking(self, key: Key, pods: Mapping[str, Uid]) -> dict[str, str]:
        wanted = {name: self._needs[key][uid] for name, uid in pods.items()}
        sentences = {
            need: await self._asked(key, need)
            for need in dict.fromkeys(need for each in wanted.values() for need in each)
        }
        said = {name: filter(None, map(sentences.get, each)) for name, each in wanted.items()}
        return {name: first for name, each in said.items() if (first := next(each, None))}

    async def _asked(self, key: Key, need: Need) -> str:
        """What is missing of it, in a sentence."""
        try:
            found = await self._get(key, (need.kind, need.name))
        except Refused:  # whether it is there is not for us to know
            return ""
        return lack(need, key.namespace, found)

    async def _get(self, key: Key, child: Child) -> Object | None:
        try:
            return await self._cluster.get(child[0], key.namespace, child[1])
        except Gone:
            return None


def _unmade(observed: Observed) -> dict[str, Uid]:
    pods = {**observed.of(POD), **observed.router_pods}
    unmade = sorted(name for name, pod in pods.items() if is_unmade(pod))
    return {name: pods[name]["metadata"]["uid"] for name in unmade[:_MOST_PODS]}


def _made_by_us(key: Key) -> frozenset[Child]:
    """Nobody else needs to make these: they are brought back as soon as they are missed."""
    certificates = (names.certificate(key.name, role) for role in HOLDERS)
    ours = ((SECRET, name) for name in certificates)
    return frozenset((*ours, (CONFIG_MAP, names.router(key.name))))
