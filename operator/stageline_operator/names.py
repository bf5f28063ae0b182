"""What the children of a resource are called, and what a child's labels say of it. Pure.

Every name has at most 63 characters, so that it may be a label and a host name, whatever the
resource is called: one that would be longer keeps its end, and a hash stands for the rest.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from stageline_operator.kinds import Object
from stageline_operator.labels import PIPELINE, REVISION, STAGE
from stageline_operator.observed import PipelineKey, PodKey
from stageline_wire.roles import Role

LONGEST: Final = 63
KEPT: Final = "pipelines.json"
"""Key of a router's ConfigMap: the pipelines in it, as [revision, index] pairs."""
_HASH_LENGTH = 8


def router_service(owner: str) -> str:
    """Of the Service that clients call, and of its host name."""
    return _service(owner, "")


def stages_service(owner: str) -> str:
    """Of the headless Service under which stages find each other."""
    return _service(owner, "-stages")


def router(owner: str) -> str:
    """Of the router's Deployment, ConfigMap and PodDisruptionBudget."""
    return _joined(owner, "-router")


def service_account(owner: str) -> str:
    """Of the ServiceAccount of every pod."""
    return _joined(owner, "")


def authority(owner: str) -> str:
    """Of the Secret with the resource's own certificate authority."""
    return _joined(owner, "-ca")


def certificate(owner: str, role: Role) -> str:
    """Of the Secret with the certificate of a role."""
    return _joined(owner, f"-{role}-tls")


def revision(owner: str, revision: str) -> str:
    """Of a ControllerRevision."""
    return _joined(owner, f"-{revision}")


def pipeline_name(owner: str, key: PipelineKey) -> str:
    """Of a pipeline, and of its PodDisruptionBudget."""
    return _joined(owner, f"-{key.revision}-{key.index}")


def pod_name(owner: str, key: PodKey) -> str:
    """Of a stage's pod, and its host name."""
    return _joined(owner, f"-{key.revision}-{key.index}-{key.stage}")


def profile_pod(owner: str, subject: str) -> str:
    """Of the pod that profiles the model; `subject` tells one profile from another."""
    return _joined(owner, f"-profile-{subject}")


def pod_key(pod: Object) -> PodKey | None:
    """Which stage a pod is, by its labels; None when they do not say."""
    labels = pod["metadata"].get("labels") or {}
    try:
        return PodKey(labels[REVISION], int(labels[PIPELINE]), int(labels[STAGE]))
    except (KeyError, ValueError):
        return None


def kept_pipelines(config: Object | None) -> tuple[PipelineKey, ...] | None:
    """The pipelines that a router's ConfigMap lists; None when there is none that can be read."""
    try:
        pairs = json.loads(((config or {}).get("data") or {})[KEPT])
        return tuple(PipelineKey(str(revision), int(index)) for revision, index in pairs)
    except (KeyError, ValueError, TypeError):
        return None


def _service(owner: str, suffix: str) -> str:
    """Services are called by older rules: their names begin with a letter."""
    return _joined(owner if owner[0].isalpha() else f"pld-{owner}", suffix)


def _joined(owner: str, suffix: str) -> str:
    name = owner + suffix
    if len(name) <= LONGEST:
        return name
    mark = hashlib.sha256(owner.encode()).hexdigest()[:_HASH_LENGTH]
    kept = owner[: LONGEST - len(suffix) - len(mark) - 1].rstrip("-")
    return f"{kept}-{mark}{suffix}"
