"""The nodes of the cluster, read when a plan asks for them and kept for a minute.

Kubelets write their node every few seconds: a watch of all would cost more than all that the
operator does, for what a plan asks once.
"""

from __future__ import annotations

import asyncio
from typing import Final

from stageline_operator.cluster import Cluster, Refused
from stageline_operator.devices import Nodes
from stageline_operator.kinds import NODE

KEPT_SECONDS: Final = 60.0


class NodeReader:
    """Shared by all resources: a thousand that are planned at once ask once."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = asyncio.Lock()
        self._known = Nodes()
        self._until = 0.0

    async def read(self) -> Nodes:
        """As of a minute ago at most. Any ClusterError but Refused, which is an answer too."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now >= self._until:
                try:
                    self._known = Nodes((await self._cluster.list(NODE, None)).items)
                except Refused as error:
                    self._known = Nodes(refused=str(error))
                self._until = now + KEPT_SECONDS
            return self._known
