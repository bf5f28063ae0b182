"""Which processes a manifest needs on one machine, and the documents that they start with."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stageline_api.documents import RouterDocument, StageDocument
from stageline_api.plan import Plan
from stageline_api.rendering import pipeline_names, router_document, stage_documents
from stageline_api.resource import PipelineDeployment
from stageline_local.ports import LOOPBACK, free_ports
from stageline_local.process import ProcessSpec
from stageline_local.statedir import StateDir

STAGE_GRACE_SECONDS = 5.0
ROUTER_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One copy of the model."""

    name: str
    stages: tuple[StageDocument, ...]

    @property
    def leader(self) -> str:
        """Address of stage 0."""
        return self.stages[0].leader

    def process(self, stage: int) -> str:
        """Name of the process that holds this stage."""
        return f"{self.name}-stage-{stage}"


@dataclass(frozen=True, slots=True)
class Layout:
    """All that `stageline up` runs for one manifest."""

    model: str
    pipelines: tuple[Pipeline, ...]
    router: RouterDocument

    @property
    def router_process(self) -> str:
        """Name of the router's process."""
        return f"{self.model}-router"


def lay_out(deployment: PipelineDeployment, plan: Plan, port: int) -> Layout:
    """Choose the ports and render every document.

    PortTaken when there are not enough, RenderError when the spec asks for what is not there.
    """
    names = pipeline_names(deployment)
    stages = len(plan.stages)
    ports = iter(free_ports(stages * len(names), but=port))
    pipelines = tuple(
        Pipeline(
            name,
            stage_documents(
                deployment, plan, name, [f"{LOOPBACK}:{next(ports)}" for _ in range(stages)]
            ),
        )
        for name in names
    )
    leaders = {pipeline.name: pipeline.leader for pipeline in pipelines}
    router = router_document(deployment, plan, f"{LOOPBACK}:{port}", leaders)
    router = router.model_copy(update={"drain_seconds": ROUTER_GRACE_SECONDS - 2})
    return Layout(deployment.metadata.name, pipelines, router)


def process_specs(layout: Layout, state: StateDir) -> tuple[ProcessSpec, ...]:
    """Write the documents into `state` and say how to start a process with each."""
    count = sum(len(pipeline.stages) for pipeline in layout.pipelines)
    env = {"PYTHONUNBUFFERED": "1", **threads(os.environ, _cores(), count)}
    stages = (
        _spec(
            state, pipeline.process(document.stage), document, ("stageline_worker", "stage"),
            env, STAGE_GRACE_SECONDS,
        )
        for pipeline in layout.pipelines
        for document in pipeline.stages
    )  # fmt: skip
    router = _spec(
        state, layout.router_process, layout.router, ("stageline_router",),
        {"PYTHONUNBUFFERED": "1"}, ROUTER_GRACE_SECONDS,
    )  # fmt: skip
    return (*stages, router)


def threads(environment: Mapping[str, str], cores: int, stages: int) -> dict[str, str]:
    """An equal share of the cores for each stage, unless the user has chosen a number."""
    if "OMP_NUM_THREADS" in environment:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, cores // stages))}


def _spec(
    state: StateDir,
    name: str,
    document: StageDocument | RouterDocument,
    module: tuple[str, ...],
    env: Mapping[str, str],
    grace_seconds: float,
) -> ProcessSpec:
    path: Path = state.write(f"{name}.json", document.model_dump_json(indent=2))
    command = (sys.executable, "-m", *module, "--document", str(path))
    return ProcessSpec(name, command, state.log(name), env, grace_seconds)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
