"""Whether the cluster's CRD is as new as the operator.

Helm never upgrades a CRD, and the API server drops without a word what its CRD does not know: a
user asks for something, and the operator never hears of it. Nobody but the operator can tell, so it
compares the served schema with its own, at its start and every minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from stageline_api.crd import GROUP, PLURAL
from stageline_operator.cluster import Cluster, ClusterError
from stageline_operator.dropped import dropped_fields, sentence
from stageline_operator.kinds import Kind

log = logging.getLogger(__name__)

NAME: Final = f"{PLURAL}.{GROUP}"
_LOOK_SECONDS: Final = 60.0


class _Unplaced(Kind):
    """A kind whose objects are in no namespace."""

    def path(self, namespace: str, name: str = "") -> str:
        """Where the object is, whatever the namespace."""
        return f"/apis/{self.api_version}/{self.plural}/{name}"


CRD: Final = _Unplaced(
    "apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"
)


class Definition:
    """What the cluster's CRD drops, as of a minute ago at most."""

    def __init__(self, cluster: Cluster, changed: Callable[[], None]) -> None:
        self._cluster = cluster
        self._changed = changed
        self.dropped: tuple[str, ...] = ()

    async def look(self) -> None:
        """Compare once. An API server that does not answer changes nothing."""
        try:
            dropped = dropped_fields(await self._cluster.get(CRD, "", NAME))
        except ClusterError as error:
            log.warning("cannot read the CRD: %s", error)
            return
        if dropped == self.dropped:
            return
        self.dropped = dropped
        if dropped:
            log.warning("%s", sentence(dropped))
        else:
            log.info("the CRD in this cluster is as new as the operator")
        self._changed()

    async def keep(self) -> None:
        """Look every minute. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.look()
