"""What a Deployment needs next: pure.

Pods of the present template are new, all others old. Within the strategy's limits new ones are
made and old ones removed, those that do not work first. There is no ReplicaSet in between: the
pods are the Deployment's own, and carry the template's hash.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from stageline_local.client import Object

HASH_LABEL: Final = "pod-template-hash"
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' own: no vowels, no words
_HASH_LENGTH: Final = 10


@dataclass(frozen=True, slots=True)
class Step:
    """Do this now; what follows is decided when it has come true."""

    create: int = 0
    delete: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Limits:
    surge: int
    unavailable: int


def template_hash(deployment: Object) -> str:
    """The same for the same template, as a label's value."""
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    letters = ""
    for _ in range(_HASH_LENGTH):
        number, rest = divmod(number, len(_ALPHABET))
        letters += _ALPHABET[rest]
    return letters


def next_step(deployment: Object, pods: Sequence[Object]) -> Step:
    """What to do, given all pods of the Deployment, those that are leaving included."""
    wanted = _replicas(deployment)
    over = [_name(pod) for pod in pods if _is_over(pod) and not _leaving(pod)]
    alive = [pod for pod in pods if not _leaving(pod) and not _is_over(pod)]
    new, old = _split(deployment, alive)
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        old_names = [_name(pod) for pod in old]
        _, old_left = _split(deployment, [pod for pod in pods if not _is_over(pod)])
        create = 0 if old_left else max(0, wanted - len(new))
    else:
        limits = _limits(deployment, wanted)
        create = max(0, min(wanted - len(new), wanted + limits.surge - len(alive)))
        old_names = _removable(new, old, wanted - limits.unavailable)
    surplus = sorted(new, key=_worth)[: max(0, len(new) - wanted)]
    return Step(create, (*over, *old_names, *map(_name, surplus)))


def deployment_status(deployment: Object, pods: Sequence[Object], now: str) -> Object:
    """The status to write; `now` as Kubernetes writes times."""
    alive = [pod for pod in pods if not _leaving(pod) and not _is_over(pod)]
    wanted, ready = _replicas(deployment), sum(map(is_ready, alive))
    new, _ = _split(deployment, alive)
    limits = _limits(deployment, wanted)
    enough = ready >= wanted - limits.unavailable
    done = len(new) == len(alive) == wanted and ready >= wanted
    name = deployment["metadata"]["name"]
    conditions = [
        {
            "type": "Available",
            "status": str(enough),
            "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            "message": f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        },
        {
            "type": "Progressing",
            "status": "True",
            "reason": "NewReplicaSetAvailable" if done else "ReplicaSetUpdated",
            "message": f'Deployment "{name}" '
            + ("has successfully progressed." if done else "is progressing."),
        },
    ]
    before = (deployment.get("status") or {}).get("conditions") or []
    return {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": len(alive),
        "updatedReplicas": len(new),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, wanted - ready),
        "conditions": [_timed(condition, before, now) for condition in conditions],
    }


def new_pod(deployment: Object, suffix: str) -> Object:
    """A pod of the present template; `suffix` ends its name."""
    metadata, template = deployment["metadata"], deployment["spec"]["template"]
    own = template.get("metadata") or {}
    digest = template_hash(deployment)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name'][:46]}-{digest}-{suffix}",
            "namespace": metadata["namespace"],
            "labels": {**(own.get("labels") or {}), HASH_LABEL: digest},
            "annotations": own.get("annotations") or {},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": template["spec"],
    }


def is_ready(pod: Object) -> bool:
    """Its condition Ready is True."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _removable(new: Sequence[Object], old: Sequence[Object], least: int) -> list[str]:
    """Old pods that may go: at least `least` pods stay, and what works is taken last."""
    new_broken = sum(not is_ready(pod) for pod in new)
    broken = [pod for pod in old if not is_ready(pod)]
    broken = broken[: max(0, len(new) + len(old) - least - new_broken)]
    working = [pod for pod in old if is_ready(pod)]
    ready = len(new) - new_broken + len(working)
    return [_name(pod) for pod in [*broken, *working[: max(0, ready - least)]]]


def _limits(deployment: Object, wanted: int) -> _Limits:
    strategy = deployment["spec"].get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    surge = math.ceil(_count(rolling.get("maxSurge", "25%"), wanted))
    unavailable = math.floor(_count(rolling.get("maxUnavailable", "25%"), wanted))
    if surge == unavailable == 0:
        unavailable = 1  # or nothing could ever move
    return _Limits(surge, min(unavailable, wanted))


def _count(limit: int | str, wanted: int) -> Fraction:
    if isinstance(limit, int):
        return Fraction(limit)
    return Fraction(int(limit.removesuffix("%")) * wanted, 100)


def _split(deployment: Object, pods: Sequence[Object]) -> tuple[list[Object], list[Object]]:
    digest = template_hash(deployment)
    new = [pod for pod in pods if pod["metadata"].get("labels", {}).get(HASH_LABEL) == digest]
    return new, [pod for pod in pods if pod not in new]


def _replicas(deployment: Object) -> int:
    return int(deployment["spec"].get("replicas", 1))


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])


def _leaving(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _worth(pod: Object) -> tuple[bool, bool, str]:
    """The least first: without a node, not ready, then any."""
    return bool(pod["spec"].get("nodeName")), is_ready(pod), _name(pod)


def _timed(condition: Object, before: Sequence[Object], now: str) -> Object:
    for old in before:
        if old["type"] == condition["type"]:
            same = all(old.get(name) == value for name, value in condition.items())
            turned = old["lastTransitionTime"] if old["status"] == condition["status"] else now
            updated = old.get("lastUpdateTime", now) if same else now
            return {**condition, "lastTransitionTime": turned, "lastUpdateTime": updated}
    return {**condition, "lastTransitionTime": now, "lastUpdateTime": now}
