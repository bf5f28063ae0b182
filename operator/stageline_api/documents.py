"""The small documents that whoever runs a pipeline hands to a stage and to a router.

The operator puts a stage's into its pod's environment and the router's into a ConfigMap. Worker
and router know nothing else of the resource.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageDocument(_Document):
    """All that one worker must know: which layers of which model, and its neighbours."""

    model: str = Field(description="Name that clients use.")
    pipeline: str = Field(description="Name of this copy of the model, for example llama-0.")
    revision: str
    plan_hash: str
    stage: int = Field(ge=0)
    partition: tuple[int, ...] = Field(description="Layers of each stage.")
    uri: str = Field(description="Where the checkpoint is.")
    cache: str = Field(
        default="", description="Folder that keeps what is downloaded; nothing is kept if empty."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    weight_dtype: Literal["float16"] | None = Field(
        default=None, description="Of the matrices of linear layers; dtype if None."
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    max_model_len: int | None = Field(default=None, description="Tokens; the model's own if None.")
    max_sequences: int = Field(default=16, ge=1, description="Sequences generating at once.")
    prefill_chunk: int = Field(default=512, ge=1, description="Prompt tokens in one microbatch.")
    max_waiting: int = Field(default=1024, ge=1, description="Accepted work that may wait.")
    transport: Literal["auto", "socket", "grpc"] = "auto"
    addresses: tuple[str, ...] = Field(description="host:port of each stage; stage 0 leads.")
    listen: str = Field(description="host:port that this worker binds.")
    health: str = Field(
        default="",
        description="host:port of a health service in plaintext, which probes ask; none if empty.",
    )
    credentials: str = Field(
        default="",
        description="Folder of ca.crt, tls.crt and tls.key for mutual TLS; plaintext if empty.",
    )

    @property
    def stages(self) -> int:
        """How many stages the ring has."""
        return len(self.partition)

    @property
    def layers(self) -> tuple[int, int]:
        """First layer of this stage, and the one after its last."""
        first = sum(self.partition[: self.stage])
        return first, first + self.partition[self.stage]

    @property
    def leader(self) -> str:
        """Address of stage 0."""
        return self.addresses[0]

    @property
    def next(self) -> str:
        """Address of the stage that takes this one's activations; the last one's is the leader."""
        return self.addresses[(self.stage + 1) % self.stages]


class PipelineAddress(_Document):
    """One pipeline that a router may send to."""

    name: str
    leader: str = Field(description="host:port of its stage 0.")
    tls: bool = Field(default=False, description="Whether its leader asks for mutual TLS.")


class RouterDocument(_Document):
    """All that a router must know. It reads the file again when it changes."""

    model: str
    uri: str = Field(description="Where the tokenizer is.")
    listen: str = Field(description="host:port of the Open Inference Protocol server.")
    health: str = Field(
        default="",
        description="host:port of a health service in plaintext, which probes ask; none if empty.",
    )
    pipelines: tuple[PipelineAddress, ...]
    tls_secret: str = Field(default="", description="Secret of the certificate for clients.")
    token_secret: str = Field(default="", description="Secret of the tokens of clients.")
    max_batch_size: int = Field(default=32, ge=1, description="Rows in one microbatch.")
    max_delay_milliseconds: float = Field(
        default=2.0, ge=0, description="Time that a request may wait for others to fill a batch."
    )
    max_queue: int = Field(default=1024, ge=1, description="Requests accepted and not answered.")
    drain_seconds: float = Field(
        default=25.0,
        ge=0,
        description="Time for what was accepted once told to stop; whoever stops it waits longer.",
    )
