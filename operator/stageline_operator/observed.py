"""What the operator has seen of one resource: the only input of every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from stageline_api.plan import Plan
from stageline_api.profile import ModelProfile
from stageline_api.spec import PipelineDeploymentSpec
from stageline_operator.devices import Nodes
from stageline_operator.kinds import Kind, Object


class PipelineKey(NamedTuple):
    """One pipeline: the revision that it belongs to, and its index from 0."""

    revision: str
    index: int  # type: ignore[assignment]  # a tuple's own `index` has no use here


class PodKey(NamedTuple):
    """One stage pod."""

    revision: str
    index: int  # type: ignore[assignment]  # a tuple's own `index` has no use here
    stage: int

    @property
    def pipeline(self) -> PipelineKey:
        """The pipeline that it is part of."""
        return PipelineKey(self.revision, self.index)


class RevisionRecord(BaseModel):
    """All from which the pods of one revision are made, kept as the data of a ControllerRevision.

    A pod of an old revision that is lost while a new one rolls out is made anew from its record.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    revision: str
    number: int
    """Counts up: a higher one is newer."""
    image: str
    """Of the worker."""
    tls: bool = False
    """Whether its stages ask for certificates: they did not before there was a choice."""
    spec: PipelineDeploymentSpec
    profile: ModelProfile
    plan: Plan
    devices: str = ""
    """By which nodes the memory of its GPUs is known, or why not; empty where no node was asked."""


@dataclass(frozen=True, slots=True)
class StageReport:
    """One worker as it sees itself (stageline.v1.WorkerReport)."""

    stage: int
    state: Literal["Starting", "Loading", "Loaded", "Serving", "Draining", "Failed"]
    first_layer: int = 0
    end_layer: int = 0
    loaded_bytes: int = 0
    total_bytes: int = 0
    loads: int = 0
    transport: str = ""
    transport_note: str = ""
    """Why its link does not use a faster one."""
    compute_seconds: float = 0.0
    hop_seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class PipelineReport:
    """One pipeline as its leader sees it (stageline.v1.PipelineReport)."""

    pipeline: str
    revision: str
    state: Literal["Waiting", "Connecting", "Ready", "Draining"]
    """Ready: a canary microbatch went round the ring."""
    message: str = ""
    sessions: int = 0
    stages: tuple[StageReport, ...] = ()

    def stage(self, number: int) -> StageReport | None:
        """The report of one stage, None while its worker has not been heard."""
        return next((report for report in self.stages if report.stage == number), None)


@dataclass(frozen=True, slots=True)
class SharedProfile:
    """What the pod of another resource reads of a model, as it is since this one asks for it."""

    profile: ModelProfile | None
    """None while it still reads."""
    wait: float = 0.0
    """Seconds for which it is then worth waiting."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One resource, its children and what its pipelines report, at one moment."""

    resource: Object
    children: Mapping[Kind, Mapping[str, Object]]
    """Those that are labelled as its own and controlled by it, by kind and name."""
    router_pods: Mapping[str, Object] = field(default_factory=dict)
    """Pods labelled as the resource's router: its Deployment's, so no children of its own."""
    reports: Mapping[PipelineKey, PipelineReport] = field(default_factory=dict)
    """The newest of each pipeline whose leader is heard now."""
    taken: Mapping[tuple[Kind, str], str] = field(default_factory=dict)
    """Children that cannot be made since the name is somebody else's, and whose it is."""
    refused: Mapping[tuple[Kind, str], str] = field(default_factory=dict)
    """Children that the API server refused to make (quota, admission), and its sentence."""
    silences: Mapping[PipelineKey, str] = field(default_factory=dict)
    """Why leaders are not heard, in a sentence, where that is known."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """What pods that do not start wait for, in a sentence, by the pod's name."""
    dropped: tuple[str, ...] = ()
    """Fields of the resource that the cluster's CRD is too old to keep."""
    conflict: str = ""
    """That another operator wants to serve it as well, a sentence; empty where none does."""
    profiles: Mapping[str, SharedProfile] = field(default_factory=dict)
    """By what tells one pod that reads a model from another (render.profile_pod)."""
    nodes: Nodes | None = None
    """None where they were not read: only a decision that asks for them has them."""

    def of(self, kind: Kind) -> Mapping[str, Object]:
        """The children of one kind, by name."""
        return self.children.get(kind, {})
