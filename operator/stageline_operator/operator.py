"""The operator, put together: events go into cache and queue, what is due is reconciled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from stageline_operator import health
from stageline_operator.cache import Cache, Key
from stageline_operator.cluster import Cluster, ClusterError
from stageline_operator.decision import Decision
from stageline_operator.definition import Definition
from stageline_operator.execution import child_of
from stageline_operator.kinds import PIPELINE_DEPLOYMENT, Object, kind_of
from stageline_operator.lists import Lists
from stageline_operator.metrics import Metrics
from stageline_operator.missing import Missing
from stageline_operator.observed import Observed
from stageline_operator.others import Others
from stageline_operator.profiles import Profiles
from stageline_operator.queue import Later, WorkQueue
from stageline_operator.reconcile import Decide, Reconciler, soonest
from stageline_operator.reports import PORT, Introductions, Reports, leaders
from stageline_operator.secrets import Secrets
from stageline_operator.settings import RenderSettings
from stageline_operator.watches import Watches

log = logging.getLogger(__name__)

_SPACING_SECONDS: Final = 0.05
"""A pod's events come in bursts, and each look at a resource costs some milliseconds."""


class Operator:
    """Everything that lives between start and stop. Hears events by `heard`."""

    def __init__(
        self,
        cluster: Cluster,
        decide: Decide,
        settings: RenderSettings,
        *,
        namespaces: Sequence[str] = (),
        workers: int = 8,
        metrics: Metrics | None = None,
        leader_port: int = PORT,
        conflict: Callable[[str], str] = lambda namespace: "",
    ) -> None:
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue(
            self._work, workers=workers, spacing=_SPACING_SECONDS, failed=self._failed
        )
        self._secrets = Secrets(cluster, self.cache)
        self._missing = Missing(cluster)
        self._profiles = Profiles(self.queue.add)
        self.reports = Reports(self._reported, leader_port, self._secrets.channel)
        self.metrics = metrics or Metrics()
        self.metrics.gauges = self._gauges
        self._lists = Lists(cluster, self.cache, namespaces, self.queue.add)
        self._definition = Definition(cluster, self.look_at_all)
        self._others = None if namespaces else Others(cluster, self._look_at)
        self._conflict = conflict
        self._reconciler = Reconciler(
            cluster,
            self.cache,
            decide,
            settings,
            complete=self._complete,
            decided=self._decided,
            rate=self.queue.rate,
        )
        self._introductions = Introductions()
        self._watches = Watches(cluster, self._lists, self.heard)
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Come back when everything has been listed and reconciling has begun."""
        await self._lists.first()
        await self._definition.look()
        if self._others is not None:
            await self._others.first()
        for key in self.cache.existing():
            self._asked(key)
        self.queue.start()
        self._keepers = [
            asyncio.create_task(self._lists.keep(), name="lists"),
            asyncio.create_task(self._watches.keep(), name="watches"),
            asyncio.create_task(self._definition.keep(), name="definition"),
        ]
        if self._others is not None:
            self._keepers.append(asyncio.create_task(self._others.keep(), name="others"))

    async def stop(self) -> None:
        """Leave no task behind. What was under way is broken off: it is begun anew next time."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self.queue.stop()
        await self.reports.stop()

    def heard(self, event: str | None, obj: Object) -> None:
        """A watch event."""
        key = self.cache.heard(event, obj)
        if key is None:
            return
        if event == "DELETED":
            self._reconciler.was_freed(key, child_of(obj))
        elif kind_of(obj) == PIPELINE_DEPLOYMENT:
            self._asked(key)
        self.queue.add(key)

    def watch_began_anew(self) -> None:
        """A watch may have missed something."""
        self._lists.watch_began_anew()

    def unhealthy(self) -> list[str]:
        """What only a restart can mend; nothing is wrong while the API server is not there yet."""
        if not self._lists.complete:
            return []
        debt = self.cache.oldest_debt(_now())
        silent = None if debt is None else (debt[0].plural, debt[1])
        ended = [keeper.get_name() for keeper in self._keepers if keeper.done()]
        return health.complaints(self.queue.alive, self.queue.oldest_running(), silent, ended)

    def unready(self) -> list[str]:
        """Why nothing is reconciled yet."""
        return [] if self._lists.complete else ["not everything has been listed yet"]

    async def _work(self, key: Key) -> float | None:
        if key.namespace in self.unserved:
            self.reports.follow(key, {})
            return None
        began = _now()
        try:
            await self._secrets.look(key, self.cache.observed(key), began)
            await self._missing.look(key, self.cache.observed(key), began)
        except ClusterError as error:
            raise Later(str(error)) from error
        observed = self.cache.observed(key)
        wanted = leaders(observed) if observed else {}
        self.reports.follow(key, wanted)
        if wait := self._introductions.wait(
            key, wanted.keys() - self.reports.of(key).keys(), began
        ):
            return wait
        result = "error"
        try:
            again = await self._reconciler.reconcile(key)
            result = "done"
        except Later:
            result = "retry"
            raise
        finally:
            self.metrics.reconciled(result, _now() - began)
        if observed is None:
            self.queue.forget(key)
            self._introductions.forget(key)
            self._profiles.forget(key)
        secrets = self._secrets.wait(key, self.cache.observed(key), _now())
        return soonest(again, secrets, self._missing.wait(key, _now()))

    def _complete(self, key: Key, observed: Observed) -> Observed:
        self._asked(key)  # a list may have told of it, or an answer
        return replace(
            observed,
            reports=self.reports.of(key),
            silences=self.reports.silences(key),
            lacks=self._missing.of(key),
            dropped=self._definition.dropped,
            conflict=self._conflict(key.namespace),
            profiles=self._profiles.of(key, _now()),
        )

    def _asked(self, key: Key) -> None:
        if (resource := self.cache.resource(key)) is not None:
            self._profiles.asked(key, resource, _now())

    def _decided(self, key: Key, decision: Decision) -> None:
        self._profiles.decided(key, decision.reading, _now())

    def _failed(self, key: Key, error: Exception, wait: float) -> None:
        if isinstance(error, Later):
            log.info("again in %.2f s: %s", wait, error, extra={"key": str(key)})
        else:
            log.error("a bug: again in %.2f s", wait, exc_info=error, extra={"key": str(key)})

    def _reported(self, key: Key, wait: float) -> None:
        if wait:
            self.queue.add_after(key, wait)
        else:
            self.queue.add(key)

    def look_at_all(self) -> None:
        """What is true of every resource may have changed."""
        for key in self.cache.existing():
            self.queue.add(key)

    def _look_at(self, namespaces: Iterable[str]) -> None:
        for key in self.cache.existing():
            if key.namespace in namespaces:
                self.queue.add(key)

    @property
    def unserved(self) -> frozenset[str]:
        """Namespaces that operators of their own serve."""
        return frozenset() if self._others is None else self._others.namespaces

    def _gauges(self) -> dict[str, float]:
        mine = (key for key in self.cache.existing() if key.namespace not in self.unserved)
        ready = [_is_ready(self.cache.resource(key)) for key in mine]
        return {
            "queue_depth": self.queue.depth,
            "queue_oldest_seconds": self.queue.oldest_waiting(),
            "reconcile_in_flight": self.queue.in_flight,
            "reconcile_longest_seconds": self.queue.oldest_running(),
            "report_streams": self.reports.heard,
            "crd_missing_fields": len(self._definition.dropped),
            "namespaces_elsewhere": len(self.unserved),
            "resources": len(ready),
            "resources_ready": sum(ready),
        }


def _is_ready(resource: Object | None) -> bool:
    conditions = ((resource or {}).get("status") or {}).get("conditions") or []
    return any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
