"""The front door: its Deployment, Service, document and budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from stageline_api.documents import PipelineAddress
from stageline_api.rendering import router_document
from stageline_api.resource import PipelineDeployment
from stageline_api.spec import RouterSpec
from stageline_operator import names
from stageline_operator.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    SERVICE,
    Object,
)
from stageline_operator.labels import ROUTER_COMPONENT
from stageline_operator.observed import PipelineKey, RevisionRecord
from stageline_operator.render import pods, secrets
from stageline_operator.render.metadata import child, owner, selector
from stageline_operator.render.patching import Patched, patched
from stageline_operator.render.source import Source, record_source
from stageline_operator.render.stage import leader_address
from stageline_operator.settings import RenderSettings

CONTAINER = "router"
DOCUMENT_HASH: Final = "stageline.dev/document"
"""Annotation of a router's pod: a kubelet that sees another one brings the new document at once."""
_DOCUMENT_KEY = "router.json"
_DOCUMENT_FOLDER = "/etc/stageline"
_FRONT_FOLDER = "/var/run/stageline/front"
_TOKENS_FOLDER = "/var/run/stageline/tokens"
_HASH_LENGTH = 16


@dataclass(frozen=True, slots=True)
class _SecretFolder:
    """A Secret that a router reads, and the flag that says where it is."""

    name: str
    secret: str
    flag: str
    path: str


def router_deployment(
    resource: Object,
    deployment: PipelineDeployment,
    record: RevisionRecord,
    settings: RenderSettings,
) -> Object:
    """The routers of the model of `record`; RenderError when they cannot be made."""
    labels = selector(resource, ROUTER_COMPONENT)
    return child(
        resource,
        DEPLOYMENT,
        names.router(owner(resource)),
        ROUTER_COMPONENT,
        spec={
            "replicas": deployment.spec.router.replicas,
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": _template(resource, deployment, record, settings),
        },
    )


def router_service(resource: Object, deployment: PipelineDeployment) -> Object:
    """Where clients call."""
    port = deployment.spec.router.port
    return child(
        resource,
        SERVICE,
        names.router_service(owner(resource)),
        ROUTER_COMPONENT,
        spec={
            "type": "ClusterIP",
            "selector": selector(resource, ROUTER_COMPONENT),
            "ports": [
                {
                    "name": "grpc",
                    "port": port,
                    "targetPort": port,
                    "protocol": "TCP",
                    "appProtocol": "https" if deployment.spec.router.tls else "kubernetes.io/h2c",
                }
            ],
        },
    )


def router_config(
    resource: Object,
    deployment: PipelineDeployment,
    record: RevisionRecord,
    kept: Sequence[PipelineKey],
    settings: RenderSettings,
    secured: Collection[PipelineKey] = (),
) -> Object:
    """The routers' document, which lists the pipelines that are kept: the record of intent.

    The leaders of those that are `secured` ask for certificates.
    """
    document = router_document(
        deployment,
        record_source(resource, record, settings).uri,
        f"0.0.0.0:{deployment.spec.router.port}",
        f"0.0.0.0:{pods.HEALTH_PORT}",
        [
            PipelineAddress(
                name=names.pipeline_name(owner(resource), key),
                leader=leader_address(resource, key, settings),
                tls=key in secured,
            )
            for key in kept
        ],
    )
    return child(
        resource,
        CONFIG_MAP,
        names.router(owner(resource)),
        ROUTER_COMPONENT,
        data={_DOCUMENT_KEY: document.model_dump_json(indent=1), names.KEPT: json.dumps(kept)},
    )


def document_hash(config: Object) -> str:
    """What tells one document of a router's ConfigMap from another."""
    text: str = (config.get("data") or {}).get(_DOCUMENT_KEY, "")
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]


def router_budget(resource: Object, deployment: PipelineDeployment) -> Object | None:
    """Keeps all routers but one while nodes are emptied; None when there is only one."""
    replicas = deployment.spec.router.replicas
    if replicas == 1:
        return None
    return child(
        resource,
        DISRUPTION_BUDGET,
        names.router(owner(resource)),
        ROUTER_COMPONENT,
        spec={
            "minAvailable": replicas - 1,
            "selector": {"matchLabels": selector(resource, ROUTER_COMPONENT)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )


def _secret_folders(resource: Object, router: RouterSpec) -> list[_SecretFolder]:
    """Its own certificate has a place even where no pipeline asks for one, since one may later."""
    own = names.certificate(owner(resource), "router")
    found = [_SecretFolder("tls", own, "--credentials", secrets.FOLDER)]
    if router.tls is not None:
        found.append(_SecretFolder("front", router.tls.secret_name, "--tls", _FRONT_FOLDER))
    if router.auth is not None:
        name = router.auth.token_secret_name
        found.append(_SecretFolder("tokens", name, "--tokens", _TOKENS_FOLDER))
    return found


def _template(
    resource: Object,
    deployment: PipelineDeployment,
    record: RevisionRecord,
    settings: RenderSettings,
) -> Object:
    router = deployment.spec.router
    folders = _secret_folders(resource, router)
    source = record_source(resource, record, settings)
    container = _container(router, folders, source, settings)
    config = {
        "name": names.router(owner(resource)),
        "items": [{"key": _DOCUMENT_KEY, "path": _DOCUMENT_KEY}],
    }
    document = {"name": "document", "configMap": config}
    # All are optional: a router says itself what is missing, and a kubelet would say nothing.
    volumes = [secrets.volume(folder.name, folder.secret, optional=True) for folder in folders]
    whole = child(resource, DEPLOYMENT, "", ROUTER_COMPONENT)
    template = {
        "metadata": {
            "labels": whole["metadata"]["labels"],
            "annotations": {pods.DEFAULT_CONTAINER: CONTAINER},
        },
        "spec": pods.pod_spec(
            resource,
            container,
            source,
            [document, *volumes],
            restartPolicy="Always",
            tolerations=pods.away(),
        ),
    }
    where = Patched(owner(resource), CONTAINER, "spec.router.podTemplate")
    return patched(template, router.pod_template, where)


def _container(
    router: RouterSpec, folders: Sequence[_SecretFolder], source: Source, settings: RenderSettings
) -> Object:
    return pods.container(
        CONTAINER,
        router.image or settings.router_image,
        source,
        command=["python", "-m", "stageline_router"],
        args=[
            "--document",
            f"{_DOCUMENT_FOLDER}/{_DOCUMENT_KEY}",
            *(word for folder in folders for word in (folder.flag, folder.path)),
        ],
        ports=[
            {"name": "grpc", "containerPort": router.port, "protocol": "TCP"},
            pods.health_port(),
        ],
        resources=pods.resources(router.resources),
        volumeMounts=[
            secrets.mount("document", _DOCUMENT_FOLDER),
            *(secrets.mount(folder.name, folder.path) for folder in folders),
        ],
        **pods.probes("router"),
    )
