"""Lists of everything: before the first decision, and whenever a watch may have missed something.

A decision is true only when every kind has been listed. And a watch that had to begin anew (its
place in history was gone) tells what is, but not what ended meanwhile: a list does. A watch that
has owed news for long may be dead, so a list tells them instead of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from stageline_operator.cache import WATCHED, Cache, Key
from stageline_operator.cluster import Cluster, ClusterError, Gone
from stageline_operator.kinds import PIPELINE_DEPLOYMENT, Kind
from stageline_operator.labels import OWNER

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
_DEBT_SECONDS: Final = 30.0
"""How long a watch may owe something; what only is behind pays sooner."""
_DEBT_LIST_SECONDS: Final = 60.0
"""Between lists while one owes for longer."""
_ANYWAY_SECONDS: Final = 600.0
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0


class Lists:
    """Keeps the cache true where watches cannot."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        namespaces: Sequence[str],
        changed: Callable[[Key], None],
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self.places: Sequence[str | None] = namespaces or (None,)
        """Namespaces that are served; None: all."""
        self.versions: dict[tuple[Kind, str | None], int] = {}
        """At which each kind in each place was listed the last time."""
        self._changed = changed
        self._again = False
        self.complete = False
        """Whether every kind has been listed once."""

    async def first(self) -> None:
        """List everything, however long it takes until the API server is there and has the CRD."""
        wait, said = _FIRST_WAIT, ""
        while not self.complete:
            try:
                await self._all()
            except ClusterError as error:
                if (sentence := _sentence(error)) != said:
                    log.warning("%s: waiting", sentence)
                    said = sentence
                await asyncio.sleep(wait)
                wait = min(_LONGEST_WAIT, 2 * wait)
            else:
                self.complete = True
        if said:
            log.info("the API server answers, and has PipelineDeployments")

    def watch_began_anew(self) -> None:
        """A watch tells of objects that it had told of before."""
        self._again = True

    async def list(self, kind: Kind, place: str | None) -> int:
        """List one kind in one place; the version at which it was so. Any ClusterError."""
        selector = "" if kind == PIPELINE_DEPLOYMENT else OWNER
        listing = await self._cluster.list(kind, place, selector)
        now = asyncio.get_running_loop().time()
        for key in self._cache.listed(kind, place, listing, now):
            self._changed(key)
        self.versions[kind, place] = listing.version
        return listing.version

    async def keep(self) -> None:
        """List again whenever there is reason to. Runs until it is cancelled."""
        clock = asyncio.get_running_loop().time
        last = clock()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            apart = _DEBT_LIST_SECONDS if self._is_owed(clock()) else _ANYWAY_SECONDS
            if not self._again and clock() - last < apart:
                continue
            self._again = False
            try:
                await self._all()
            except ClusterError as error:
                log.warning("cannot list: %s", error)
                self._again = True
            last = clock()

    async def _all(self) -> None:
        for kind in WATCHED:
            for place in self.places:
                await self.list(kind, place)

    def _is_owed(self, now: float) -> bool:
        debt = self._cache.oldest_debt(now)
        return debt is not None and debt[1] > _DEBT_SECONDS


def _sentence(error: ClusterError) -> str:
    if isinstance(error, Gone):
        return (
            "this cluster knows no PipelineDeployment: install its CustomResourceDefinition "
            "(kubectl apply -f manifests/crd.yaml)"
        )
    return str(error)
