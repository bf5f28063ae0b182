"""From a resource and its plan to the documents that stages and routers are started with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stageline_api.documents import PipelineAddress, RouterDocument, StageDocument
from stageline_api.plan import Plan
from stageline_api.pods import PodTemplate
from stageline_api.quantity import parse_duration
from stageline_api.resource import PipelineDeployment
from stageline_api.spec import PipelineDeploymentSpec

REVISION_LENGTH = 10
GRACE_SECONDS = 30
_LAST_SECONDS = 5.0


class RenderError(Exception):
    """The resource asks for what this version cannot start; the message says what to change."""

    def __init__(self, sentence: str, reason: str = "NotInThisVersion") -> None:
        super().__init__(sentence)
        self.reason = reason
        """One word, for a condition."""


def revision(deployment: PipelineDeployment, plan: Plan, image: str) -> str:
    """Equal as long as running stages are what the spec and the worker's `image` ask for.

    How many pipelines there are, and what only the router does, can change without it; so can
    what only the plan is made from, as the plan's own hash is in it.
    """
    matters = {
        "plan": plan.plan_hash,
        "image": image,
        "maxQueue": deployment.spec.router.max_queue,
        **({"tls": True} if speaks_tls(deployment.spec) else {}),
        # Without defaults, so that a field that a later version adds changes no revision.
        "spec": deployment.spec.model_dump(
            mode="json", exclude_defaults=True, exclude=_OF_NO_STAGE
        ),
    }
    text = json.dumps(matters, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:REVISION_LENGTH]


def speaks_tls(spec: PipelineDeploymentSpec) -> bool:
    """Whether stages ask each other, and whoever else calls, for a certificate."""
    return spec.security.tls == "Enabled"


_OF_NO_STAGE: dict[str, Any] = {
    "replicas": True,
    "router": True,
    "batching": True,
    "rollout": True,
    "security": True,
    "image": True,
    "pipeline": {"stages", "partition"},
    "resources": {"device_memory"},
    "stage_overrides": {"__all__": {"speed_percent": True, "resources": {"device_memory"}}},
}


@dataclass(frozen=True, slots=True)
class Ring:
    """What all stages of one pipeline share beside spec and plan."""

    model: str
    pipeline: str
    revision: str
    uri: str
    """Where the checkpoint is, as the stages see it."""
    addresses: tuple[str, ...]
    cache: str = ""
    """Folder that keeps what stages download; empty: nothing is kept."""
    credentials: str = ""
    """Folder of a stage's certificate; empty: plaintext."""


def stage_document(
    spec: PipelineDeploymentSpec, plan: Plan, ring: Ring, stage: int, listen: str
) -> StageDocument:
    """The document of one stage; RenderError when the spec's transport is not there."""
    transport = spec.pipeline.transport
    if transport == "collective":
        raise RenderError(
            f"spec.pipeline.transport {transport} of {ring.model} is not in this version: "
            "use auto, socket or grpc"
        )
    return StageDocument(
        model=ring.model,
        pipeline=ring.pipeline,
        revision=ring.revision,
        plan_hash=plan.plan_hash,
        stage=stage,
        partition=plan.partition,
        uri=ring.uri,
        cache=ring.cache,
        dtype=plan.dtype,
        weight_dtype=spec.model.weight_dtype,
        device=spec.pipeline.device,
        max_model_len=plan.max_model_len,
        max_sequences=spec.generation.max_sequences,
        prefill_chunk=spec.generation.prefill_chunk,
        max_waiting=spec.router.max_queue,
        transport=transport,
        addresses=ring.addresses,
        listen=listen,
        credentials=ring.credentials,
    )


def router_document(
    deployment: PipelineDeployment,
    uri: str,
    listen: str,
    health: str,
    pipelines: Sequence[PipelineAddress],
) -> RouterDocument:
    """The router's document; `uri` is where the router finds the checkpoint."""
    spec = deployment.spec
    return RouterDocument(
        model=deployment.metadata.name,
        uri=uri,
        listen=listen,
        health=health,
        pipelines=tuple(pipelines),
        tls_secret=spec.router.tls.secret_name if spec.router.tls else "",
        token_secret=spec.router.auth.token_secret_name if spec.router.auth else "",
        max_batch_size=spec.batching.max_batch_size,
        max_delay_milliseconds=parse_duration(spec.batching.max_delay),
        max_queue=spec.router.max_queue,
        drain_seconds=drain_seconds(spec.router.pod_template),
    )


def drain_seconds(*templates: PodTemplate | None) -> float:
    """For what was accepted, once a pod is told to stop: its grace, less what follows the last
    answer. The last of `templates` that sets the grace decides.
    """
    grace = GRACE_SECONDS
    for template in templates:
        asked = template.spec.get("terminationGracePeriodSeconds") if template else None
        grace = asked if isinstance(asked, int) else grace
    return max(grace - _LAST_SECONDS, 0.0)
