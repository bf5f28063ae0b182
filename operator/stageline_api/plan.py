"""The plan: which layers each stage of a pipeline gets, made before anything is started.

`plan` is a function of a model's profile and a request, and of nothing else. What cannot be is
refused with the sentence that says what could (PlanError).
"""

from __future__ import annotations

import hashlib
import json
from itertools import accumulate

from pydantic import BaseModel, ConfigDict, Field

from stageline_api.dealing import Dealing, Partition
from stageline_api.plan_request import PlanRequest
from stageline_api.profile import ModelProfile
from stageline_api.refusal import (
    MemoryRefusal,
    empty_stage,
    no_such_stage,
    too_many_stages,
    wrong_sum,
)
from stageline_api.sizing import DTYPE_BYTES, ComputeDtype, Settings, model_load
from stageline_api.spec import WeightDtypeName


class PlanError(Exception):
    """There is no such plan; the message is the sentence that says what would fit."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedStage(_Document):
    """One stage of the plan."""

    stage: int
    first_layer: int
    end_layer: int = Field(description="The one after its last layer.")
    weight_bytes: int = Field(description="Its weights in memory, embedding and head included.")
    kv_bytes: int = Field(description="Room for the KV cache of all sequences.")
    needs_bytes: int = Field(description="Weights, KV room, activations and the process itself.")
    offers_bytes: int | None = Field(description="Memory of its device; None when unknown.")
    time_share: float = Field(description="Of the time that one microbatch takes, from 0 to 1.")


class Plan(_Document):
    """A model, dealt to the stages of a pipeline."""

    model: str = Field(description="Name of the resource.")
    uri: str
    dtype: ComputeDtype = Field(description="Type that the stages compute in, never auto.")
    max_model_len: int | None = Field(description="Tokens; None when the model takes none.")
    partition: tuple[int, ...] = Field(description="Layers of each stage.")
    stages: tuple[PlannedStage, ...]
    memory_checked: bool = Field(description="Whether the memory of every stage is known.")
    bottleneck_ratio: float = Field(description="Time of the slowest stage over the mean.")
    plan_hash: str = Field(description="Equal when all that stages must agree on is equal.")


def plan(profile: ModelProfile, request: PlanRequest) -> Plan:
    """Deal the layers of `profile` as `request` asks; PlanError says what would fit."""
    settings = _settings(profile, request)
    dealing = Dealing(model_load(profile, settings), request)
    refusal = MemoryRefusal(profile, settings, request)
    if request.partition is not None:
        partition = _checked(request.partition, dealing, refusal)
    else:
        partition = _dealt(dealing, refusal)
    return _document(partition, dealing, settings)


def _checked(partition: Partition, dealing: Dealing, refusal: MemoryRefusal) -> Partition:
    """The partition that was asked for, if it can be."""
    name, layers = dealing.request.name, len(dealing.load.layers)
    if min(partition) < 1:
        raise PlanError(empty_stage(name, partition))
    if sum(partition) != layers:
        raise PlanError(wrong_sum(name, layers, partition))
    if dealing.overfull(partition) is not None:
        raise PlanError(refusal.partition(partition))
    return partition


def _dealt(dealing: Dealing, refusal: MemoryRefusal) -> Partition:
    """The best partition on the stages that were asked for, or on the fewest that fit."""
    request, layers = dealing.request, len(dealing.load.layers)
    highest = max(request.overrides, default=0)
    if (request.stages or 1) > layers:
        raise PlanError(too_many_stages(request.name, layers, request.stages or 1))
    if highest >= (request.stages or layers):
        raise PlanError(no_such_stage(highest, request.stages or layers))
    stages = request.stages or dealing.fewest_stages(least=highest + 1)
    if stages is None:
        raise PlanError(refusal.any_stages())
    partition = dealing.deal(stages)
    if partition is None:
        raise PlanError(refusal.stages(stages))
    return partition


def _settings(profile: ModelProfile, request: PlanRequest) -> Settings:
    dtype = _dtype(profile, request)
    return Settings(
        dtype=dtype,
        max_model_len=_max_model_len(profile, request),
        max_sequences=request.max_sequences,
        prefill_chunk=request.prefill_chunk,
        max_batch_size=request.max_batch_size,
        weight_dtype=_weight_dtype(dtype, request),
    )


def _dtype(profile: ModelProfile, request: PlanRequest) -> ComputeDtype:
    wanted = profile.dtype if request.dtype == "auto" else request.dtype
    for known in DTYPE_BYTES:
        if known == wanted:
            return known
    raise PlanError(
        f"the checkpoint of {request.name} is {wanted}, which no stage computes in: "
        f"set spec.model.dtype to one of {', '.join(DTYPE_BYTES)}"
    )


def _weight_dtype(dtype: ComputeDtype, request: PlanRequest) -> WeightDtypeName | None:
    if request.weight_dtype is not None and dtype != "float32":
        raise PlanError(
            f"spec.model.weightDtype {request.weight_dtype} is for stages that compute in float32, "
            f"but those of {request.name} compute in {dtype}: set spec.model.dtype to float32, or "
            "leave spec.model.weightDtype out"
        )
    return request.weight_dtype


def _max_model_len(profile: ModelProfile, request: PlanRequest) -> int:
    own, asked = profile.max_model_len, request.max_model_len
    if asked is None:
        if own == 0 and profile.task == "generate":
            raise PlanError(
                f"the model of {request.name} has no length limit of its own: "
                "set spec.model.maxModelLen, from which its KV room follows"
            )
        return own
    if 0 < own < asked:
        raise PlanError(
            f"spec.model.maxModelLen is {asked} but the model of {request.name} was made for "
            f"{own} tokens: lower it to {own} or less, or leave it out"
        )
    return asked if own or profile.vocab_size else 0


def _document(partition: Partition, dealing: Dealing, settings: Settings) -> Plan:
    request, loads = dealing.request, dealing.loads(partition)
    devices = [request.device_of(stage) for stage in range(len(partition))]
    times = [
        load.picoseconds / device.speed_percent for load, device in zip(loads, devices, strict=True)
    ]
    stages = tuple(
        PlannedStage(
            stage=stage,
            first_layer=end - partition[stage],
            end_layer=end,
            weight_bytes=loads[stage].weight_bytes,
            kv_bytes=loads[stage].kv_bytes,
            needs_bytes=loads[stage].needs_bytes,
            offers_bytes=devices[stage].memory_bytes,
            time_share=times[stage] / sum(times),
        )
        for stage, end in enumerate(accumulate(partition))
    )
    return Plan(
        model=request.name,
        uri=request.uri,
        dtype=settings.dtype,
        max_model_len=settings.max_model_len or None,
        partition=partition,
        stages=stages,
        memory_checked=all(device.memory_bytes is not None for device in devices),
        bottleneck_ratio=max(times) * len(times) / sum(times),
        plan_hash=_plan_hash(partition, request, settings),
    )


def _plan_hash(partition: Partition, request: PlanRequest, settings: Settings) -> str:
    """Of what every stage of a ring must hold to be true, and of nothing else."""
    agreed = {
        "uri": request.uri,
        "dtype": settings.dtype,
        "partition": partition,
        "maxModelLen": settings.max_model_len,
        "maxSequences": settings.max_sequences,
        "prefillChunk": settings.prefill_chunk,
        **({"weightDtype": settings.weight_dtype} if settings.weight_dtype else {}),
    }
    return hashlib.sha256(json.dumps(agreed, sort_keys=True).encode()).hexdigest()[:16]
