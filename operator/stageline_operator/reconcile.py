"""One resource, once: look, decide, do.

1. What the cache knows of the resource; nothing is done about one that is gone or going.
2. The decision, a pure function of what was seen.
3. Children are made or brought back, and pods patched, all together; before them only what must
   never be lost once they are there.
4. Children that are to go are deleted.
5. Pods are created.
6. When a name turned out to be somebody else's, or the server refused a child: decide once more,
   so that the status says it.
7. The status is written, then the Events are posted.

A step begins when the one before it is done without exception, since what a step does may rest on
what the one before has recorded. Answers go into the cache at once, so that the next decision sees
them even before the watch does, and what the watch then tells of them is no news. Whatever went
otherwise than foreseen ends in Later: look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from stageline_operator.cache import Cache, Child, Key
from stageline_operator.cluster import Busy, Cluster, ClusterError
from stageline_operator.decision import Decision
from stageline_operator.execution import Execution
from stageline_operator.memory import Memory
from stageline_operator.nodes import NodeReader
from stageline_operator.observed import Observed
from stageline_operator.queue import Later
from stageline_operator.settings import RenderSettings

Decide = Callable[[Observed, RenderSettings, datetime], Decision]
Complete = Callable[[Key, Observed], Observed]
"""Adds what others than the API server know of a resource."""
Decided = Callable[[Key, Decision], None]
"""Learns of a decision before it is carried out."""

_ROUNDS: Final = 3
"""Decisions in one reconcile: what is refused in the third is tried at the next."""


class Reconciler:
    """Brings resources to what they should be, one key at a time."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        decide: Decide,
        settings: RenderSettings,
        *,
        complete: Complete = lambda key, observed: observed,
        decided: Decided = lambda key, decision: None,
        rate: Callable[[], float] = float,
        at_once: int = 64,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._decide = decide
        self._settings = settings
        self._complete = complete
        self._tell_decided = decided
        self._nodes = NodeReader(cluster)
        self._rate = rate
        self._slots = asyncio.Semaphore(at_once)
        self._memories: dict[Key, Memory] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Seconds after which to look again, or None. Raises Later when it did not come through."""
        try:
            return await self._reconcile(key)
        except Busy as busy:
            raise Later(str(busy), busy.retry_after) from busy
        except ClusterError as error:
            raise Later(str(error)) from error

    def was_freed(self, key: Key, child: Child) -> None:
        """An object of this name has ended, so the name may be ours now."""
        if key in self._memories:
            self._memories[key].was_freed(child)

    async def _reconcile(self, key: Key) -> float | None:
        for _ in range(_ROUNDS):
            looked, observed = _now(), self._look(key)
            if observed is None:
                return None
            memory = self._memories[key]
            one = Execution(self._cluster, self._cache, key, observed, memory)
            decision = await self._decided(observed)
            self._tell_decided(key, decision)
            try:
                if await one.effects(decision, self._slots):
                    await one.tell(decision, self._rate())
                    return soonest(decision.again, memory.due(_now(), looked), one.again)
            finally:
                one.log()
        raise Later("the API server refuses one child after the other")

    async def _decided(self, observed: Observed) -> Decision:
        """The decision, once more with the nodes of the cluster where it asks for them."""
        decision = self._decide(observed, self._settings, datetime.now(UTC))
        if decision.wants_nodes:
            seen = replace(observed, nodes=await self._nodes.read())
            decision = self._decide(seen, self._settings, datetime.now(UTC))
        return decision

    def _look(self, key: Key) -> Observed | None:
        """None when the resource is gone or going: its children go with it, by their owner."""
        resource = self._cache.resource(key)
        if resource is None or "deletionTimestamp" in resource["metadata"]:
            self._memories.pop(key, None)
            return None
        memory, now = self._memories.setdefault(key, Memory()), _now()
        memory.forget_if_changed(resource)
        observed = self._cache.observed(key, memory.taken(now), memory.refused(now))
        return None if observed is None else self._complete(key, observed)


def soonest(*waits: float | None) -> float | None:
    """The shortest of those that there are."""
    return min((wait for wait in waits if wait is not None), default=None)


def _now() -> float:
    return asyncio.get_running_loop().time()
