"""Watches of the children: what happens to them, from where the lists ended.

Kopf watches the resource itself (handlers.py). Its children are many times as many, and of them
nothing is asked but that the cache hears of them; these watches do that at a third of the cost.
What they tell is complete: a stream that breaks goes on from the version that it told last, and
where the API server has forgotten what came after that, a list tells what is and what ended.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from stageline_operator.cache import version_of
from stageline_operator.cluster import Cluster, ClusterError, Expired
from stageline_operator.kinds import CHILDREN, Kind, Object
from stageline_operator.labels import OWNER
from stageline_operator.lists import Lists

log = logging.getLogger(__name__)

_BOOKMARK: Final = "BOOKMARK"
_WAITS: Final = (0.05, 10.0)
_SAID_FROM: Final = 1.0
"""A wait of so many seconds: what goes over sooner is not worth a line in the log."""


class Watches:
    """One stream for each kind of child and each place that is served."""

    def __init__(
        self, cluster: Cluster, lists: Lists, heard: Callable[[str, Object], None]
    ) -> None:
        self._cluster = cluster
        self._lists = lists
        self._heard = heard

    async def keep(self) -> None:
        """Tell of every change, once everything was listed. Runs until it is cancelled."""
        async with asyncio.TaskGroup() as streams:
            for kind in CHILDREN:
                for place in self._lists.places:
                    streams.create_task(self._keep(kind, place), name=f"watch {kind.plural}")

    async def _keep(self, kind: Kind, place: str | None) -> None:
        version: int | None = self._lists.versions[kind, place]
        wait = _WAITS[0]
        while True:
            try:
                if version is None:
                    version = await self._lists.list(kind, place)
                stream = self._cluster.follow(kind, place, version, OWNER)
                async with aclosing(stream) as changes:
                    async for change in changes:
                        version, wait = version_of(change.object), _WAITS[0]
                        if change.type != _BOOKMARK:
                            self._heard(change.type, change.object)
            except Expired:
                version = None
            except ClusterError as error:
                if wait >= _SAID_FROM:
                    log.warning("cannot watch %s: %s", kind.plural, error)
            await asyncio.sleep(wait * (0.5 + random.random() / 2))
            wait = min(_WAITS[1], 2 * wait)
