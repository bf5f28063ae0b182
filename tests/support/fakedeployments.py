"""A Deployment controller reduced to what a test of its owner sees: pods and status."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable

from stageline_local.client import DEPLOYMENT, POD, ApiError, Client, Object
from support.podstatus import now

_HASH = "pod-template-hash"


async def deploy(client: Client, deployment: Object, pods: Iterable[Object]) -> None:
    """Make what is missing, delete what is too much, write the status; of `pods` only its own."""
    meta, spec = deployment["metadata"], deployment["spec"]
    template = spec["template"]
    version = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
    names = [f"{meta['name']}-{version}-{n}" for n in range(spec.get("replicas", 1))]
    own = {p["metadata"]["name"]: p for p in pods if _owner(p) == meta["uid"] and not _leaving(p)}
    for name in names:
        if name not in own:
            await _make(client, deployment, template, name, version)
    updated = [own[name] for name in names if name in own]
    if all(map(_is_ready, updated)) and len(updated) == len(names):
        for name in own.keys() - set(names):
            await client.delete(POD.place(meta["namespace"], name))
    await _write(client, deployment, list(own.values()), len(updated))


async def bury(client: Client, deployment: Object, pods: Iterable[Object]) -> None:
    """Delete the pods of a Deployment that is gone."""
    uid = deployment["metadata"]["uid"]
    own = [pod for pod in pods if _owner(pod) == uid]
    await asyncio.gather(*(client.delete(POD.of(pod)) for pod in own))


async def _make(
    client: Client, deployment: Object, template: Object, name: str, version: str
) -> None:
    meta = deployment["metadata"]
    owner = {
        "apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"], "uid": meta["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    given = template.get("metadata") or {}
    metadata = {
        "name": name,
        "namespace": meta["namespace"],
        "labels": {**given.get("labels", {}), _HASH: version},
        "annotations": given.get("annotations") or {},
        "ownerReferences": [owner],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    try:
        await client.create(POD.place(meta["namespace"]), pod)
    except ApiError as error:
        if error.reason != "AlreadyExists":  # made a moment ago; its event is on the way
            raise


async def _write(client: Client, deployment: Object, own: list[Object], updated: int) -> None:
    running = sum(map(_is_ready, own))
    wanted = deployment["spec"].get("replicas", 1)
    status: Object = {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": len(own),
        "updatedReplicas": updated,
        "readyReplicas": running,
        "availableReplicas": running,
        "unavailableReplicas": max(0, wanted - running),
    }
    before = deployment.get("status") or {}
    if all(before.get(name, 0) == value for name, value in status.items()):
        return
    available = {
        "type": "Available", "status": "True" if running >= wanted else "False",
        "reason": "MinimumReplicasAvailable" if running >= wanted else "MinimumReplicasUnavailable",
        "message": "", "lastTransitionTime": now(), "lastUpdateTime": now(),
    }  # fmt: skip
    patch = {"status": {**status, "conditions": [available]}}
    await client.merge_patch(DEPLOYMENT.of(deployment), patch, subresource="status")


def _owner(pod: Object) -> str:
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def _leaving(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
