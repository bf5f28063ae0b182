"""This machine as a node."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import datetime

from stageline_local.client import NODE, ApiError, Client, Object
from stageline_local.kubelet.addresses import HOST
from stageline_local.kubelet.status import timestamp

_MOST_PODS = 110


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def capacity(extra: Mapping[str, str]) -> dict[str, str]:
    """What pods can ask for here; `extra` adds resources such as nvidia.com/gpu, or overrules."""
    kibibytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 10
    mine = {"cpu": str(cores()), "memory": f"{kibibytes}Ki", "pods": str(_MOST_PODS)}
    return {**mine, **extra}


def node(name: str, labels: Mapping[str, str]) -> Object:
    """The object that registers it."""
    mine = {"kubernetes.io/hostname": name, "kubernetes.io/os": platform.system().lower()}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**mine, **labels}},
    }


def node_status(resources: Mapping[str, str], now: datetime) -> Object:
    """It is ready, and has this much."""
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "pods run as processes of this machine",
        "lastHeartbeatTime": timestamp(now),
        "lastTransitionTime": timestamp(now),
    }
    return {
        "capacity": dict(resources),
        "allocatable": dict(resources),
        "addresses": [{"type": "InternalIP", "address": HOST}],
        "conditions": [ready],
        "nodeInfo": {
            "kubeletVersion": "stageline",
            "operatingSystem": platform.system().lower(),
            "architecture": platform.machine(),
            "kernelVersion": platform.release(),
            "osImage": platform.platform(),
            "containerRuntimeVersion": "process://1",
            "machineID": "", "systemUUID": "", "bootID": "", "kubeProxyVersion": "",
        },
    }  # fmt: skip


async def register(
    client: Client,
    name: str,
    labels: Mapping[str, str],
    resources: Mapping[str, str],
    now: datetime,
) -> None:
    """Make the node, or take over the one that a kubelet before has left."""
    try:
        await client.create(NODE.place(), node(name, labels))
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    path = NODE.place(name=name)
    await client.merge_patch(path, {"status": node_status(resources, now)}, subresource="status")
