"""A pod on every node that may do what no pod of ours may: write to its disk, kill its processes.

It is the checkpoint's way to the nodes, where a volume of the cluster finds it, and the way to
`kill -9` the process of a container: inside, it is process 1, whom no signal from within ends.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import yaml

from e2e.cluster import Object, items, kubectl

NAMESPACE = "stageline-e2e-nodes"
FOLDER = "/var/lib/stageline-e2e"
CLAIM = "models"
_NAME = "hands"
_LABELS = {"app": "stageline-e2e-hands"}
_WAIT = "import signal; signal.sigwait({signal.SIGTERM})"
_UNPACK = """
import sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode="r|").extractall("/models")
"""
_CLEAN = "import shutil; shutil.rmtree('/models', ignore_errors=True)"
_KILL = """
import os, pathlib, signal, sys
uid = sys.argv[1]
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        groups = (folder / "cgroup").read_text().replace("_", "-")
        words = (folder / "cmdline").read_bytes().split(b"\\0")
    except OSError:
        continue
    if uid in groups and b"stageline_worker" in words:
        os.kill(int(folder.name), signal.SIGKILL)
        print(folder.name)
"""


def place(image: str, checkpoint: Path) -> None:
    """Put a pod on every node, and a folder called like the checkpoint's on its disk."""
    kubectl("apply", "-f", "-", fed=yaml.safe_dump_all([_namespace(), _daemons(image)]))
    where = ("--namespace", NAMESPACE)
    kubectl("rollout", "status", f"daemonset/{_NAME}", *where, "--timeout=120s")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(checkpoint, checkpoint.name)
    for pod in _pods():
        _python(pod["metadata"]["name"], _UNPACK, fed=archive.getvalue())


def claim(namespace: str) -> list[Object]:
    """A claim `models` on the folders, which are the same on all nodes."""
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"],
            "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": FOLDER, "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": CLAIM},
        },
    }  # fmt: skip
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": namespace,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }  # fmt: skip
    return [volume, claim]


def kill_worker(pod: Object) -> None:
    """kill -9 of the process that is the pod's worker."""
    (there,) = (one for one in _pods() if one["spec"]["nodeName"] == pod["spec"]["nodeName"])
    killed = _python(there["metadata"]["name"], _KILL, pod["metadata"]["uid"])
    assert killed, f"no process of {pod['metadata']['name']} is on {pod['spec']['nodeName']}"


def remove() -> None:
    """Leave nothing on any disk, and no pod."""
    for pod in _pods():
        if pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp"):
            _python(pod["metadata"]["name"], _CLEAN)


def _pods() -> list[Object]:
    selector = ",".join(f"{key}={value}" for key, value in _LABELS.items())
    found = items("pods", "--namespace", NAMESPACE, "--selector", selector)
    return [pod for pod in found if _is_ready(pod)]


def _is_ready(pod: Object) -> bool:
    told = pod["status"].get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in told)


def _python(pod: str, code: str, *arguments: str, fed: bytes = b"") -> str:
    command = ("python", "-c", code, *arguments)
    return kubectl("exec", "--stdin", "--namespace", NAMESPACE, pod, "--", *command, fed=fed)


def _namespace() -> Object:
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    return {"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": labels}}  # fmt: skip


def _daemons(image: str) -> Object:
    hands = {
        "name": "hands", "image": image, "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", _WAIT], "securityContext": {"runAsUser": 0, "privileged": True},
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
    }  # fmt: skip
    host = {"name": "models", "hostPath": {"path": FOLDER, "type": "DirectoryOrCreate"}}
    spec = {
        "hostPID": True, "terminationGracePeriodSeconds": 1, "containers": [hands],
        "tolerations": [{"operator": "Exists"}], "volumes": [host],
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": _NAME, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": dict(_LABELS)},
            "template": {"metadata": {"labels": dict(_LABELS)}, "spec": spec},
        },
    }  # fmt: skip
