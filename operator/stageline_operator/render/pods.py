"""What every pod has: it passes Pod Security "restricted", and writes to its emptyDirs alone."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from stageline_api.pods import ContainerResources
from stageline_api.rendering import GRACE_SECONDS
from stageline_api.spec import PipelineDeploymentSpec
from stageline_operator import names
from stageline_operator.kinds import Object
from stageline_operator.render.metadata import owner
from stageline_operator.render.source import Source

TERMINATION_LOG = "/dev/termination-log"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_SCRATCH = "/tmp"
_GROUP = 65532  # the images' own
_WRITABLE = {"fsGroup": _GROUP, "fsGroupChangePolicy": "OnRootMismatch"}
_AWAY_SECONDS = 60  # what is on a node that is gone is replaced after this; 300 by default
_AWAY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


HEALTH_PORT = 7072
"""Of workers and routers: for probes, which speak no TLS, and for nothing else."""


def pod_ip() -> Object:
    """For what listens on the pod's own address."""
    return {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def literal(text: str) -> str:
    """`text` where Kubernetes would expand $(VAR): args and the values of variables."""
    return text.replace("$", "$$")


def container(name: str, image: str, source: Source, **more: Any) -> Object:
    """A container that reads the model at `source`; `more` has what it alone has."""
    env = [*more.pop("env", ()), {"name": "HOME", "value": _SCRATCH}]
    scratch = {"name": "scratch", "mountPath": _SCRATCH}
    made = {
        "name": name,
        "image": image,
        **more,
        "env": env,
        "volumeMounts": [scratch, *source.mounts, *more.get("volumeMounts", ())],
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    return made | ({"envFrom": list(source.env_from)} if source.env_from else {})


def pod_spec(
    resource: Object, only: Object, source: Source, volumes: Sequence[Object] = (), **more: Any
) -> Object:
    """A pod of the one container `only`; `more` has what it has beside."""
    return {
        "serviceAccountName": names.service_account(owner(resource)),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            **(_WRITABLE if source.cache else {}),
        },
        **more,
        "containers": [only],
        "volumes": [{"name": "scratch", "emptyDir": {}}, *source.volumes, *volumes],
    }


def grpc_probe(port: int, service: str, period: int, failures: int) -> Object:
    """Asks the container's gRPC health service, every `period` seconds."""
    return {
        "grpc": {"port": port, "service": service},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def health_port() -> Object:
    """Of a container with `probes`."""
    return {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"}


def probes(ready: str) -> dict[str, Object]:
    """It has five minutes to answer at all; `ready` is the service that says it can be used."""
    return {
        "startupProbe": grpc_probe(HEALTH_PORT, "", 2, 150),
        "livenessProbe": grpc_probe(HEALTH_PORT, "", 10, 6),
        "readinessProbe": grpc_probe(HEALTH_PORT, ready, 2, 3),
    }


def resources(asked: ContainerResources) -> Object:
    """As a container has them; what a device holds is between us and the plan."""
    return {"limits": dict(asked.limits), "requests": dict(asked.requests)}


def tolerations(spec: PipelineDeploymentSpec, stage: int | None = None) -> list[Object]:
    """Those of the spec and of the stage's override, and a minute for a node that is away."""
    override = None if stage is None else spec.override(stage)
    asked = (*spec.tolerations, *(override.tolerations if override else ()))
    own = [entry.model_dump(exclude_defaults=True) for entry in asked]
    keys = {entry.key for entry in asked}
    return own + away(keys)


def away(but: Container[str | None] = ()) -> list[Object]:
    """The tolerations of a minute for a node that is away; not for those of these keys."""
    return [
        {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _AWAY_SECONDS,
        }
        for key in _AWAY
        if key not in but
    ]
