"""A resource, its revision's record and its children, for a manifest's spec."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from stageline_api.documents import RouterDocument
from stageline_api.manifest import read_manifest
from stageline_api.plan import plan
from stageline_api.plan_request import plan_request
from stageline_api.profile import ModelProfile
from stageline_api.rendering import speaks_tls
from stageline_api.resource import PipelineDeployment
from stageline_operator import render
from stageline_operator.kinds import Object
from stageline_operator.observed import PipelineKey, PodKey, RevisionRecord
from stageline_operator.rotation import HOLDERS, certificates
from stageline_operator.settings import RenderSettings
from support.profiles import dense

SETTINGS = RenderSettings(worker_image="worker:1", router_image="router:1")


@dataclass(frozen=True)
class Rendered:
    """All that the render functions take."""

    resource: Object
    deployment: PipelineDeployment
    record: RevisionRecord
    settings: RenderSettings = SETTINGS

    def key(self, stage: int = 0, index: int = 0) -> PodKey:
        """A stage of this revision."""
        return PodKey(self.record.revision, index, stage)

    def stage(self, stage: int = 0, index: int = 0) -> Object:
        """Its pod."""
        return render.stage_pod(self.resource, self.record, self.key(stage, index), self.settings)

    def worker(self, stage: int = 0) -> Object:
        """The container of its pod."""
        return container(self.stage(stage), "worker")

    def profile(self) -> Object:
        """The profile pod."""
        return render.profile_pod(self.resource, self.deployment, self.settings)

    def router(self) -> Object:
        """The router's Deployment."""
        arguments = self.resource, self.deployment, self.record, self.settings
        return render.router_deployment(*arguments)

    def config(self, *kept: PipelineKey) -> Object:
        """The router's ConfigMap."""
        arguments = self.resource, self.deployment, self.record, kept, self.settings
        return render.router_config(*arguments)

    def secrets(self) -> list[Object]:
        """Of its certificates."""
        made = certificates(None, {}, "models/llama", datetime.now(UTC))
        return [
            render.authority_secret(self.resource, made.authority.data),
            *(render.certificate_secret(self.resource, r, made.held[r]) for r in HOLDERS),
        ]

    def everything(self) -> list[Object]:
        """One of each child."""
        budget = render.router_budget(self.resource, self.deployment)
        return [
            *(self.stage(stage) for stage in range(len(self.record.plan.stages))),
            self.profile(),
            self.router(),
            self.config(self.key().pipeline),
            render.router_service(self.resource, self.deployment),
            render.stages_service(self.resource),
            render.service_account(self.resource),
            render.budget(self.resource, self.record, self.key().pipeline),
            render.revision_object(self.resource, self.record),
            *self.secrets(),
            *([] if budget is None else [budget]),
        ]


def rendered(
    spec: str | dict[str, Any] = "{}",
    *,
    name: str = "llama",
    namespace: str = "models",
    uri: str = "pvc://checkpoints/llama",
    settings: RenderSettings = SETTINGS,
    profile: ModelProfile | None = None,
) -> Rendered:
    """A resource with `spec` beside the model."""
    more = yaml.safe_load(spec) if isinstance(spec, str) else spec
    model = {"uri": uri, **more.pop("model", {})}
    manifest = {
        "apiVersion": "stageline.dev/v1alpha1",
        "kind": "PipelineDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": model, **more},
    }
    deployment = read_manifest(yaml.safe_dump(manifest), "manifest.yaml")
    return of(deployment, settings, profile)


def of(
    deployment: PipelineDeployment,
    settings: RenderSettings = SETTINGS,
    profile: ModelProfile | None = None,
) -> Rendered:
    """The same of a deployment that was read."""
    profile = profile or dense()
    made = plan(profile, plan_request(deployment))
    image = deployment.spec.image or settings.worker_image
    record = RevisionRecord(
        revision=render.revision(deployment, made, image),
        number=1,
        image=image,
        tls=speaks_tls(deployment.spec),
        spec=deployment.spec,
        profile=profile,
        plan=made,
    )
    resource = {
        "apiVersion": deployment.api_version,
        "kind": deployment.kind,
        "metadata": {
            "name": deployment.metadata.name,
            "namespace": deployment.metadata.namespace,
            "uid": "0123-4567",
        },
    }
    return Rendered(resource, deployment, record, settings)


def container(pod: Object, name: str) -> Object:
    """One container of a pod or template."""
    (found,) = (each for each in pod["spec"]["containers"] if each["name"] == name)
    assert isinstance(found, dict)
    return found


def env(container: Object) -> dict[str, str]:
    """Its variables that have a value."""
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def document(made: Rendered, *kept: PipelineKey) -> RouterDocument:
    """What the router's ConfigMap says when these pipelines are kept."""
    return RouterDocument.model_validate_json(made.config(*kept)["data"]["router.json"])


def labels_of(pod: Object) -> dict[str, str]:
    """Those of a pod or template."""
    labels = pod["metadata"]["labels"]
    assert isinstance(labels, dict)
    return labels
