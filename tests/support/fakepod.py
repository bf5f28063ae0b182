"""A pod as its node knows it."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from stageline_api.documents import StageDocument
from stageline_local.client import POD, Object
from stageline_operator.labels import COMPONENT, PROFILE_COMPONENT
from support.fakeleader import FakeLeader

_EXPANDED = re.compile(r"\$\$|\$\(POD_IP\)")


@dataclass(eq=False)
class FakePod:
    """One pod as its node knows it."""

    object: Object
    ip: str
    document: StageDocument | None
    bound: float | None = None  # by the loop's clock
    down_until: float = 0.0
    restarts: int = 0
    last: Object | None = None  # how the container ended before
    written: tuple[object, ...] = ()
    loaded: bool | None = None  # None: no process
    leader: FakeLeader | None = None
    ending: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.object["metadata"]["uid"])

    @property
    def path(self) -> str:
        return POD.of(self.object)

    @property
    def node(self) -> str:
        return str(self.object["spec"].get("nodeName", ""))

    @property
    def pipeline(self) -> tuple[str, str]:
        """Namespace and name of the pipeline; no name for a pod that is no stage."""
        name = self.document.pipeline if self.document else ""
        return self.object["metadata"]["namespace"], name

    @property
    def incarnation(self) -> int:
        return int(self.uid.replace("-", "")[:12], 16) + self.restarts


def stage_document(pod: Object, ip: str) -> StageDocument | None:
    """The document of a stage pod, as Kubernetes expands it; a profile pod reads none."""
    if (pod["metadata"].get("labels") or {}).get(COMPONENT) == PROFILE_COMPONENT:
        return None
    for entry in pod["spec"]["containers"][0].get("env") or ():
        if entry["name"] == "STAGELINE_DOCUMENT":
            text = _EXPANDED.sub(lambda m: "$" if m[0] == "$$" else ip, entry["value"])
            return StageDocument.model_validate_json(text)
    return None
