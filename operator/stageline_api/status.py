"""What the operator and the workers report: the status of a PipelineDeployment.

No floating point numbers, no echo of the spec, and nothing that changes while nothing happens:
measured numbers move in steps, and what is at rest is never written again.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from stageline_api.schema import StatusModel, Whole

MAX_STAGE_ENTRIES = 256
"""Stages that status tells of. More would make the object too large for what it says."""
MAX_MESSAGE = 1024
"""Characters of one message."""
MAX_NOTE = 256
"""Characters of a note beside it."""

UNSEEN: Final = {
    "conditions": [
        {
            "type": "Ready", "status": "Unknown", "reason": "Pending",
            "message": "The operator has not looked at it yet.",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        },
    ],
}  # fmt: skip
"""What the API server itself gives to a new resource: Helm and Flux believe that one without a
Ready condition is ready. (Gateway API's resources begin in the same way.)"""

Count = Annotated[Whole, Field(ge=0)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
StageState = Literal["Pending", "Starting", "Loading", "Loaded", "Serving", "Draining", "Failed"]


class Condition(StatusModel):
    """One thing that is so, is not so, or is not known yet, and why."""

    type: Annotated[str, StringConstraints(max_length=316)] = Field(
        description="What it is about: Ready, Reconciling, Stalled, Planned, StagesScheduled, "
        "ModelLoaded, PipelineConnected or RouterReady."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: Annotated[
        str,
        StringConstraints(
            min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
        ),
    ] = Field(description="Why, in one word for programs.")
    message: Annotated[str, StringConstraints(max_length=32768)] = Field(
        default="", description="Why, in a sentence for people."
    )
    last_transition_time: Time = Field(description="When status changed last, RFC 3339.")
    observed_generation: Count = Field(
        default=0, description="The generation of the spec that this is about."
    )


class PlanStatus(StatusModel):
    """The plan that the pipelines of the current revision follow."""

    revision: str = Field(default="", description="Name of the revision whose plan it is.")
    partition: tuple[Count, ...] = Field(description="Layers of each stage, first to last.")
    hash: str = Field(description="Equal when all that stages must agree on is equal.")
    memory_checked: bool = Field(description="Whether the memory of every stage was known.")


class StageStatus(StatusModel):
    """One stage of one pipeline: its pod as the cluster sees it, its work as the worker does."""

    pipeline: str = Field(description="Name of the pipeline.")
    stage: Count = Field(description="Its number, from 0.")
    state: StageState = Field(description="Where it is in its life.")
    layers: str = Field(default="", description="Its layers, first and last, for example 0-18.")
    bytes_loaded: Count = Field(default=0, description="Bytes of its weights in memory.")
    bytes_total: Count = Field(default=0, description="Bytes of its weights.")
    pod: str = Field(default="", description="Name of its pod.")
    node: str = Field(default="", description="Name of the node that it runs on.")
    transport: str = Field(default="", description="What its link to the next stage uses.")
    transport_note: str = Field(
        default="",
        max_length=MAX_NOTE,
        description="Why that link fell back from a faster transport, in a sentence.",
    )
    compute_milliseconds: str = Field(
        default="", description="Time that it computes one microbatch, for example 12.4."
    )
    hop_milliseconds: str = Field(
        default="", description="Time until the next stage has its activations, for example 0.3."
    )
    loads: Count = Field(
        default=0, description="Times that its process has loaded weights; 1 unless it had to."
    )
    restarts: Count = Field(default=0, description="Times that its pod's container was restarted.")
    replacements: Count = Field(
        default=0, description="Times that its pod was replaced, without an hour of health between."
    )
    last_replaced: Time | None = Field(
        default=None, description="When its pod was replaced last, RFC 3339."
    )
    message: str = Field(
        default="",
        max_length=MAX_MESSAGE,
        description="What is wrong with it, in a sentence.",
    )


class PipelineDeploymentStatus(StatusModel):
    """What is, as far as the operator has seen it."""

    observed_generation: Count = Field(
        default=0, description="The generation of the spec that is fully taken into account."
    )
    replicas: Count = Field(default=0, description="Pipelines that are kept, of any revision.")
    ready_replicas: Count = Field(
        default=0, description="Pipelines that a canary microbatch went round just now."
    )
    updated_replicas: Count = Field(
        default=0, description="Pipelines that are of the newest revision."
    )
    pipelines: str = Field(
        default="", description="Pipelines that are ready and that are asked for, for example 1/2."
    )
    stage_count: Count = Field(default=0, description="Stages of one pipeline.")
    selector: str = Field(
        default="",
        description="Label selector of the leaders' pods, one for each pipeline: an autoscaler "
        "counts by them.",
    )
    plan: PlanStatus | None = Field(default=None, description="How the model is cut.")
    progressed_at: Time | None = Field(
        default=None,
        description="When a rollout or a repair last came a step further, RFC 3339.",
    )
    measured_at: Time | None = Field(
        default=None,
        description="When status was last written for its details alone, RFC 3339.",
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        description="Ready and what it is made of.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )
    stages: tuple[StageStatus, ...] = Field(
        default=(),
        max_length=MAX_STAGE_ENTRIES,
        description="The stages of every pipeline, those in trouble first where there are more "
        "than fit.",
        # Written by one, and as a whole: the API server need not keep who wrote which field.
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
