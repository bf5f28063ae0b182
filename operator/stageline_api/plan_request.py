"""What a plan is asked for: the part of a spec that decides it, and what the devices offer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from stageline_api.pods import PodTemplate, Resources, Toleration
from stageline_api.quantity import parse_quantity, quantity_bytes
from stageline_api.resource import PipelineDeployment
from stageline_api.spec import (
    DeviceName,
    PipelineDeploymentSpec,
    StageOverride,
    WeightDtypeName,
)

GPU: Final = "nvidia.com/gpu"
_PLACING: Final = ("affinity", "nodeName", "nodeSelector", "tolerations")


@dataclass(frozen=True, slots=True)
class NodeQuery:
    """The nodes whose GPUs a stage may get, where nothing else says how much memory these have."""

    gpus: int  # that its pod asks for
    labels: Mapping[str, str]  # that such a node has
    tolerations: tuple[Toleration, ...]
    patched: str = ""  # what a podTemplate says of the place, which nobody here looks into


@dataclass(frozen=True, slots=True)
class Device:
    """What one stage computes on."""

    memory_bytes: int | None = None  # None: unknown, planned without a check
    speed_percent: int = 100  # beside the other devices
    nodes: NodeQuery | None = None  # to be asked for its memory


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A model's name, how it is to be held, and the devices of its stages."""

    name: str
    uri: str
    dtype: str = "auto"
    weight_dtype: WeightDtypeName | None = None  # None: dtype
    max_model_len: int | None = None
    max_sequences: int = 16
    prefill_chunk: int = 512
    max_batch_size: int = 32
    stages: int | None = None  # None: the fewest that fit
    partition: tuple[int, ...] | None = None  # None: planned
    device: Device = Device()
    overrides: Mapping[int, Device] = field(default_factory=dict)  # by stage

    def device_of(self, stage: int) -> Device:
        """The device that `stage` has."""
        return self.overrides.get(stage, self.device)

    @property
    def devices(self) -> Iterator[Device]:
        """That of all stages, then those of overrides."""
        yield self.device
        yield from self.overrides.values()


def plan_request(deployment: PipelineDeployment) -> PlanRequest:
    """What `deployment` asks the plan for."""
    spec = deployment.spec
    overrides = {
        stage: _device(spec, spec.resources_of(stage), entry)
        for entry in spec.stage_overrides
        for stage in entry.stages
    }
    return PlanRequest(
        name=deployment.metadata.name,
        uri=spec.model.uri,
        dtype=spec.model.dtype,
        weight_dtype=spec.model.weight_dtype,
        max_model_len=spec.model.max_model_len,
        max_sequences=spec.generation.max_sequences,
        prefill_chunk=spec.generation.prefill_chunk,
        max_batch_size=spec.batching.max_batch_size,
        stages=spec.known_stages,
        partition=spec.pipeline.partition,
        device=_device(spec, spec.resources, None),
        overrides=overrides,
    )


def _device(
    spec: PipelineDeploymentSpec, resources: Resources, entry: StageOverride | None
) -> Device:
    offered = offered_bytes(resources, spec.pipeline.device)
    gpus = resources.limits.get(GPU)
    asks = offered is None and gpus is not None and spec.pipeline.device != "cpu"
    query = _node_query(spec, int(parse_quantity(gpus or "0")), entry) if asks else None
    return Device(offered, entry.speed_percent if entry is not None else 100, query)


def _node_query(spec: PipelineDeploymentSpec, gpus: int, entry: StageOverride | None) -> NodeQuery:
    templates = (spec.pod_template, entry.pod_template if entry is not None else None)
    return NodeQuery(
        gpus=gpus,
        labels=spec.node_selector | (entry.node_selector if entry is not None else {}),
        tolerations=spec.tolerations + (entry.tolerations if entry is not None else ()),
        patched=next(filter(None, map(_placed_by, templates)), ""),
    )


def _placed_by(template: PodTemplate | None) -> str:
    return next((name for name in _PLACING if template and name in template.spec), "")


def offered_bytes(resources: Resources, device: DeviceName) -> int | None:
    """Memory for a stage: its device's where given, else the memory limit of a CPU stage."""
    if resources.device_memory is not None:
        return quantity_bytes(resources.device_memory)
    accelerated = device == "cuda" or any("/" in name for name in resources.limits)
    limit = resources.limits.get("memory")
    return None if accelerated or limit is None else quantity_bytes(limit)
