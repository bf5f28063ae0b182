"""An operator of all namespaces keeps its hands off those that have an operator of their own.

It watches the Leases of such operators, which have all the same name. A Lease that is not renewed
any more is listed once more before its namespace is taken back: a watch can be silent too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from typing import Final

from stageline_operator import lease
from stageline_operator.cache import version_of
from stageline_operator.cluster import Cluster, ClusterError, Expired, Refused
from stageline_operator.elsewhere import Elsewhere
from stageline_operator.kinds import LEASE

log = logging.getLogger(__name__)

_NAMED: Final = f"metadata.name={lease.NAME}"
_LOOK_SECONDS: Final = 1.0
_WAITS: Final = (0.05, 10.0)
_REFUSED_SECONDS: Final = 60.0


class Others:
    """The namespaces that are left to other operators."""

    def __init__(self, cluster: Cluster, changed: Callable[[Iterable[str]], None]) -> None:
        self._cluster = cluster
        self._changed = changed
        self._elsewhere = Elsewhere()
        self._version: int | None = None
        self._wait = _WAITS[0]
        self.namespaces: frozenset[str] = frozenset()

    async def first(self) -> None:
        """Come back when it is known who serves what, or when that may not be known."""
        while self._version is None:
            try:
                await self._list()
            except Refused:
                return
            except ClusterError:
                await asyncio.sleep(self._longer())

    async def keep(self) -> None:
        """Tell of every change. Runs until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="watch leases")
            tasks.create_task(self._expire(), name="expire leases")

    async def _watch(self) -> None:
        while True:
            try:
                await self._follow(await self._list() if self._version is None else self._version)
            except Expired:
                self._version = None
            except Refused:
                await asyncio.sleep(_REFUSED_SECONDS)
            except ClusterError as error:
                log.debug("cannot watch leases: %s", error)
            await asyncio.sleep(self._longer())

    async def _follow(self, version: int) -> None:
        stream = self._cluster.follow(LEASE, None, version, fields=_NAMED)
        async with aclosing(stream) as changes:
            async for change in changes:
                self._version, self._wait = version_of(change.object), _WAITS[0]
                if change.type != "BOOKMARK":
                    gone = change.type == "DELETED"
                    self._elsewhere.heard(change.object, _now(), is_gone=gone)
                    self._settle(self.namespaces | self._elsewhere.namespaces(_now()).keys())

    async def _expire(self) -> None:
        """Of a Lease that is not renewed nobody tells; but it may be the watch that is silent."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self.namespaces - self._elsewhere.namespaces(_now()).keys():
                with suppress(ClusterError):
                    await self._list()

    async def _list(self) -> int:
        try:
            listing = await self._cluster.list(LEASE, None, fields=_NAMED)
        except Refused as error:
            log.warning("operators of single namespaces are not noticed: %s", error)
            raise
        self._elsewhere.listed(list(listing.items), _now())
        self._version = listing.version
        self._settle(frozenset(self._elsewhere.namespaces(_now())))
        return listing.version

    def _settle(self, namespaces: frozenset[str]) -> None:
        begin, end = namespaces - self.namespaces, self.namespaces - namespaces
        self.namespaces = namespaces
        for namespace in sorted(begin):
            who = self._elsewhere.namespaces(_now()).get(namespace) or "who held its Lease"
            log.info("leaving namespace %s to %s", namespace, who)
        for namespace in sorted(end):
            log.info("serving namespace %s: nobody renews its Lease", namespace)
        if begin or end:
            self._changed(begin | end)

    def _longer(self) -> float:
        wait, self._wait = self._wait, min(_WAITS[1], 2 * self._wait)
        return wait


def _now() -> float:
    return asyncio.get_running_loop().time()
