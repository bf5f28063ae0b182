"""What a user asks for: the spec of a PipelineDeployment."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stageline_api.pods import ContainerResources, PodTemplate, Resources, Spread, Toleration
from stageline_api.schema import (
    CacheUri,
    Duration,
    Image,
    Labels,
    ModelUri,
    ObjectName,
    Positive,
    SentenceError,
    SpecModel,
    Whole,
)

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
WeightDtypeName = Literal["float16"]
DeviceName = Literal["auto", "cpu", "cuda"]
TransportName = Literal["auto", "collective", "socket", "grpc"]

MAX_STAGES = 256
MAX_OVERRIDES = 64
MAX_PIPELINES = 1000  # their addresses and their status each fit in one object


class ModelSpec(SpecModel):
    """Which model is served, and how its numbers are held."""

    uri: ModelUri = Field(
        description="Where the checkpoint is: hf://owner/model@revision, pvc://claim/folder, "
        "s3://bucket/folder, file:///folder, or file://./folder beside the manifest."
    )
    dtype: DtypeName = Field(
        default="auto", description="Type of weights and activations; auto is the checkpoint's own."
    )
    weight_dtype: WeightDtypeName | None = Field(
        default=None,
        description="Type that CPU stages hold the matrices of linear layers in, while they go on "
        "computing in float32: half the memory, and faster, but other tokens now and then. Absent "
        "is dtype.",
    )
    max_model_len: Positive | None = Field(
        default=None,
        description="Tokens of prompt and answer together; absent is the model's own limit.",
    )
    secret_name: ObjectName | None = Field(
        default=None,
        description="Secret in the same namespace whose keys become environment variables of all "
        "that reads the model, for example HF_TOKEN.",
    )
    cache: CacheUri | None = Field(
        default=None,
        description="Where stages keep what they download of hf:// and s3://, so that one which "
        "starts again has it: pvc://claim/folder, or file:///folder of the node.",
    )

    @model_validator(mode="after")
    def _weights_are_of_use(self) -> ModelSpec:
        if self.weight_dtype is not None and self.dtype in ("bfloat16", "float16"):
            raise SentenceError(
                f"spec.model.weightDtype {self.weight_dtype} is for stages that compute in "
                f"float32, but spec.model.dtype is {self.dtype}: make that float32, or leave "
                "spec.model.weightDtype out"
            )
        return self

    @model_validator(mode="after")
    def _cache_is_of_use(self) -> ModelSpec:
        if self.cache is not None and not self.uri.startswith(("hf://", "s3://")):
            raise SentenceError(
                "spec.model.cache keeps what is downloaded of hf:// and s3://, but "
                f"spec.model.uri {self.uri} is read where it is: leave spec.model.cache out"
            )
        return self


class PipelineSpec(SpecModel):
    """How the model is cut, and what its stages run and talk on."""

    stages: Annotated[int, Field(strict=True, ge=1, le=MAX_STAGES)] | None = Field(
        default=None, description="Stages of one pipeline; absent is the fewest that fit."
    )
    partition: (
        Annotated[tuple[Positive, ...], Field(min_length=1, max_length=MAX_STAGES)] | None
    ) = Field(
        default=None,
        description="Layers of each stage, first to last; absent is planned from the model's "
        "sizes.",
    )
    transport: TransportName = Field(
        default="auto",
        description="How activations travel between stages; auto takes the fastest that a link "
        "allows.",
    )
    device: DeviceName = Field(
        default="auto", description="What stages compute on; auto is CUDA where there is one."
    )


class StageOverride(SpecModel):
    """What some stages have differently from the others."""

    stages: Annotated[
        tuple[Annotated[Whole, Field(ge=0, lt=MAX_STAGES)], ...], Field(min_length=1)
    ] = Field(
        description="Numbers of the stages, from 0.",
        max_length=MAX_STAGES,
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    node_selector: Labels = Field(
        default_factory=dict,
        description="Labels that the node of these stages must have besides spec.nodeSelector.",
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=16, description="What they tolerate besides spec.tolerations."
    )
    resources: Resources | None = Field(
        default=None,
        description="Replaces, entry by entry, what spec.resources says for these stages.",
    )
    pod_template: PodTemplate | None = Field(
        default=None, description="Patch of the pods of these stages, after spec.podTemplate."
    )
    speed_percent: Annotated[int, Field(strict=True, ge=1, le=10_000)] = Field(
        default=100,
        description="How fast the device of these stages is beside that of the others; the plan "
        "gives it layers in proportion.",
    )


class BatchingSpec(SpecModel):
    """How requests for one forward pass are put together."""

    max_batch_size: Positive = Field(default=32, description="Rows in one microbatch.")
    max_delay: Duration = Field(
        default="2ms", description="How long a request may wait for others to fill a microbatch."
    )


class GenerationSpec(SpecModel):
    """How text is generated. Models that generate none pass this over."""

    max_sequences: Positive = Field(
        default=16, description="Sequences that one pipeline generates at once; each has KV room."
    )
    prefill_chunk: Positive = Field(
        default=512, description="Prompt tokens that one microbatch takes at most."
    )


class SecuritySpec(SpecModel):
    """Who is believed inside a deployment."""

    tls: Literal["Enabled", "Disabled"] = Field(
        default="Enabled",
        description="Mutual TLS between stages, routers and the operator, with certificates that "
        "the operator makes and renews.",
    )


class RouterTlsSpec(SpecModel):
    """TLS for clients."""

    secret_name: ObjectName = Field(
        description="Secret in the same namespace with tls.crt and tls.key, as cert-manager makes "
        "it."
    )


class RouterAuthSpec(SpecModel):
    """Which clients are answered."""

    token_secret_name: ObjectName = Field(
        description="Secret in the same namespace whose key token has the bearer tokens that are "
        "accepted, one on each line."
    )


class RouterSpec(SpecModel):
    """The front door that speaks the Open Inference Protocol over gRPC."""

    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = Field(
        default=8001, description="Port of the Open Inference Protocol."
    )
    max_queue: Positive = Field(
        default=1024, description="Requests accepted and not yet answered; more are refused."
    )
    replicas: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=1, description="Routers that share the requests."
    )
    tls: RouterTlsSpec | None = Field(
        default=None, description="TLS for clients; absent is plaintext."
    )
    auth: RouterAuthSpec | None = Field(
        default=None, description="Bearer tokens of clients; absent is that all are answered."
    )
    image: Image | None = Field(
        default=None, description="Image of the router; absent is the operator's."
    )
    resources: ContainerResources = Field(
        default_factory=ContainerResources, description="What each router's pod asks for."
    )
    pod_template: PodTemplate | None = Field(
        default=None, description="Patch of the router's pods, as spec.podTemplate is of stages'."
    )


class RolloutSpec(SpecModel):
    """How pipelines of an old revision make way for those of a new one."""

    max_surge: Annotated[Whole, Field(ge=0, le=MAX_PIPELINES)] = Field(
        default=1, description="Pipelines that may exist beyond spec.replicas meanwhile."
    )
    max_unavailable: Annotated[Whole, Field(ge=0, le=MAX_PIPELINES)] = Field(
        default=0, description="Pipelines of spec.replicas that may be missing meanwhile."
    )
    progress_deadline: Duration = Field(
        default="30m",
        description="How long it may go without progress before the resource says Stalled.",
    )


class PipelineDeploymentSpec(SpecModel):
    """A model, cut into stages, and copies of it."""

    model: ModelSpec = Field(description="Which model is served.")
    pipeline: PipelineSpec = Field(
        default_factory=PipelineSpec, description="How the model is cut into stages."
    )
    replicas: Annotated[int, Field(strict=True, ge=0, le=MAX_PIPELINES)] = Field(
        default=1, description="Whole pipelines; the scale subresource sets it."
    )
    resources: Resources = Field(
        default_factory=Resources, description="What each stage's pod asks for."
    )
    image: Image | None = Field(
        default=None, description="Image of the worker; absent is the operator's."
    )
    node_selector: Labels = Field(
        default_factory=dict, description="Labels that the node of every stage must have."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        max_length=16,
        description="Taints of nodes that stages may run on all the same.",
    )
    topology_spread_constraints: tuple[Spread, ...] = Field(
        default=(),
        max_length=16,
        description="How stages are spread over nodes; absent spreads the first stages of the "
        "pipelines over hosts where that can be.",
    )
    pod_template: PodTemplate | None = Field(
        default=None,
        description="Strategic merge patch of every stage's pod, for what has no field of its "
        "own: its container is worker.",
    )
    stage_overrides: tuple[StageOverride, ...] = Field(
        default=(), max_length=MAX_OVERRIDES, description="What some stages have differently."
    )
    batching: BatchingSpec = Field(
        default_factory=BatchingSpec, description="How requests are put together."
    )
    generation: GenerationSpec = Field(
        default_factory=GenerationSpec, description="How text is generated."
    )
    router: RouterSpec = Field(default_factory=RouterSpec, description="The front door.")
    security: SecuritySpec = Field(
        default_factory=SecuritySpec, description="Who is believed inside the deployment."
    )
    rollout: RolloutSpec = Field(
        default_factory=RolloutSpec, description="How a change comes to the pipelines."
    )

    @model_validator(mode="after")
    def _fields_agree(self) -> PipelineDeploymentSpec:
        stages, partition = self.pipeline.stages, self.pipeline.partition
        if stages is not None and partition is not None and len(partition) != stages:
            raise SentenceError(
                f"spec.pipeline.partition {list(partition)} has {len(partition)} stages but "
                f"spec.pipeline.stages is {stages}: leave one of the two out, or make them agree"
            )
        if self.model.weight_dtype is not None and self._accelerated:
            raise SentenceError(
                f"spec.model.weightDtype {self.model.weight_dtype} is for stages on CPUs, but this "
                "deployment asks for accelerators: leave it out, and make spec.model.dtype float16 "
                "or bfloat16"
            )
        if self.rollout.max_surge == 0 and self.rollout.max_unavailable == 0:
            raise SentenceError(
                "spec.rollout.maxSurge and spec.rollout.maxUnavailable are both 0, so no pipeline "
                "could ever be replaced: set one of them to 1"
            )
        named = Counter(stage for override in self.stage_overrides for stage in override.stages)
        twice = [stage for stage, times in sorted(named.items()) if times > 1]
        if twice:
            raise SentenceError(
                f"spec.stageOverrides names stage {twice[0]} more than once: "
                "put all that is different for it into one entry"
            )
        known = self.known_stages
        if known is not None and named and max(named) >= known:
            raise SentenceError(
                f"spec.stageOverrides names stage {max(named)} but the pipeline has {known} "
                f"stages, 0 to {known - 1}: use one of these, or raise spec.pipeline.stages"
            )
        return self

    @property
    def known_stages(self) -> int | None:
        """Stages of one pipeline where the spec itself says it; None when the plan decides."""
        if self.pipeline.partition is not None:
            return len(self.pipeline.partition)
        return self.pipeline.stages

    @property
    def _accelerated(self) -> bool:
        """Whether a stage asks for a device other than its CPU."""
        replaced = (entry.resources for entry in self.stage_overrides)
        resources = (self.resources, *(own for own in replaced if own is not None))
        asked = (name for own in resources for name in own.limits)
        return self.pipeline.device == "cuda" or any("/" in name for name in asked)

    def override(self, stage: int) -> StageOverride | None:
        """What is different for `stage`."""
        return next((entry for entry in self.stage_overrides if stage in entry.stages), None)

    def resources_of(self, stage: int) -> Resources:
        """What `stage` has: its override's entries over those of all stages."""
        entry = self.override(stage)
        if entry is None or entry.resources is None:
            return self.resources
        own = entry.resources
        return Resources(
            limits=self.resources.limits | own.limits,
            requests=self.resources.requests | own.requests,
            device_memory=own.device_memory or self.resources.device_memory,
        )
