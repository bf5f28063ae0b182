"""What a plan is asked for: the part of a spec that decides it, and what the devices offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stageline_api.pods import Resources
from stageline_api.quantity import quantity_bytes
from stageline_api.resource import PipelineDeployment
from stageline_api.spec import DeviceName


@dataclass(frozen=True, slots=True)
class Device:
    """What one stage computes on."""

    memory_bytes: int | None = None  # None: unknown, planned without a check
    speed_percent: int = 100  # beside the other devices


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A model's name, how it is to be held, and the devices of its stages."""

    name: str
    uri: str
    dtype: str = "auto"
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


def plan_request(deployment: PipelineDeployment) -> PlanRequest:
    """What `deployment` asks the plan for."""
    spec = deployment.spec
    device = spec.pipeline.device
    overrides = {
        stage: Device(offered_bytes(spec.resources_of(stage), device), entry.speed_percent)
        for entry in spec.stage_overrides
        for stage in entry.stages
    }
    return PlanRequest(
        name=deployment.metadata.name,
        uri=spec.model.uri,
        dtype=spec.model.dtype,
        max_model_len=spec.model.max_model_len,
        max_sequences=spec.generation.max_sequences,
        prefill_chunk=spec.generation.prefill_chunk,
        max_batch_size=spec.batching.max_batch_size,
        stages=spec.known_stages,
        partition=spec.pipeline.partition,
        device=Device(offered_bytes(spec.resources, device)),
        overrides=overrides,
    )


def offered_bytes(resources: Resources, device: DeviceName) -> int | None:
    """Memory for a stage: its device's where given, else the memory limit of a CPU stage."""
    if resources.device_memory is not None:
        return quantity_bytes(resources.device_memory)
    accelerated = device == "cuda" or any("/" in name for name in resources.limits)
    limit = resources.limits.get("memory")
    return None if accelerated or limit is None else quantity_bytes(limit)
