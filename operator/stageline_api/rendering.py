"""From a resource and its plan to the documents that stages and routers are started with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from stageline_api.documents import PipelineAddress, RouterDocument, StageDocument
from stageline_api.plan import Plan
from stageline_api.quantity import parse_duration
from stageline_api.resource import PipelineDeployment

REVISION_LENGTH = 10


class RenderError(Exception):
    """The resource asks for what this version cannot start; the message says what to change."""


def pipeline_names(deployment: PipelineDeployment) -> tuple[str, ...]:
    """The name of each pipeline: llama-0, llama-1, ..."""
    name = deployment.metadata.name
    return tuple(f"{name}-{index}" for index in range(deployment.spec.replicas))


def revision(deployment: PipelineDeployment, plan: Plan) -> str:
    """Equal as long as running stages are what the spec asks for.

    How many pipelines there are, and what only the router does, can change without it.
    """
    spec = deployment.spec
    matters = {
        "plan": plan.plan_hash,
        "model": spec.model.model_dump(mode="json"),
        "pipeline": spec.pipeline.model_dump(mode="json", include={"transport", "device"}),
        "resources": spec.resources.model_dump(mode="json"),
        "stageOverrides": [entry.model_dump(mode="json") for entry in spec.stage_overrides],
        "maxQueue": spec.router.max_queue,
    }
    text = json.dumps(matters, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:REVISION_LENGTH]


def stage_documents(
    deployment: PipelineDeployment,
    plan: Plan,
    pipeline: str,
    addresses: Sequence[str],
    listen: Sequence[str] | None = None,
) -> tuple[StageDocument, ...]:
    """One document for each stage of `pipeline`.

    `addresses` has the host:port where each stage is found, `listen` the one that it binds where
    that is another. RenderError when the spec asks for a transport that is not there.
    """
    spec = deployment.spec
    transport = spec.pipeline.transport
    if transport not in ("auto", "grpc"):
        raise RenderError(
            f"spec.pipeline.transport {transport} of {deployment.metadata.name} is not in this "
            "version: use auto or grpc"
        )
    return tuple(
        StageDocument(
            model=deployment.metadata.name,
            pipeline=pipeline,
            revision=revision(deployment, plan),
            plan_hash=plan.plan_hash,
            stage=stage,
            partition=plan.partition,
            uri=plan.uri,
            dtype=plan.dtype,
            device=spec.pipeline.device,
            max_model_len=plan.max_model_len,
            max_sequences=spec.generation.max_sequences,
            prefill_chunk=spec.generation.prefill_chunk,
            max_waiting=spec.router.max_queue,
            transport=transport,
            addresses=tuple(addresses),
            listen=bound,
        )
        for stage, bound in enumerate(addresses if listen is None else listen)
    )


def router_document(
    deployment: PipelineDeployment, plan: Plan, listen: str, leaders: Mapping[str, str]
) -> RouterDocument:
    """The router's document; `leaders` has the host:port of stage 0 of each pipeline by name."""
    spec = deployment.spec
    return RouterDocument(
        model=deployment.metadata.name,
        uri=plan.uri,
        listen=listen,
        pipelines=tuple(
            PipelineAddress(name=name, leader=leader) for name, leader in leaders.items()
        ),
        max_batch_size=spec.batching.max_batch_size,
        max_delay_milliseconds=parse_duration(spec.batching.max_delay),
        max_queue=spec.router.max_queue,
    )
