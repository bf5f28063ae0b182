"""Where a resource stands: what was observed, sorted by pipeline and stage. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pydantic import ValidationError

from stageline_api.plan import PlannedStage
from stageline_api.resource import API_VERSION, KIND, PipelineDeployment
from stageline_api.sentences import sentence
from stageline_api.status import StageState
from stageline_operator import names
from stageline_operator.kinds import CONTROLLER_REVISION, DEPLOYMENT, POD, Object
from stageline_operator.observed import (
    Observed,
    PipelineKey,
    PipelineReport,
    PodKey,
    RevisionRecord,
    StageReport,
)
from stageline_operator.rollout import PipelineFact
from stageline_operator.truth import PodTruth, pod_truth

_AS_MADE: Final = 1
"""The generation of a Deployment that was never changed: all of its pods are of one shape."""


class InvalidSpecError(Exception):
    """The spec of a resource that the API server let through; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of one pipeline."""

    key: PodKey
    pod_name: str
    kept: bool
    """Its pipeline is to stay."""
    planned: PlannedStage | None
    """None where its revision's record is lost."""
    pod: Object | None
    truth: PodTruth | None
    """None while there is no pod."""
    report: StageReport | None
    """None while its leader has not heard it, or nobody has heard the leader."""

    @property
    def state(self) -> StageState:
        """What its pod says, and where that runs, what its worker says."""
        if self.truth is None:
            return "Pending"
        return self.truth.state if self.heard is None else self.heard.state

    @property
    def heard(self) -> StageReport | None:
        """Its worker's report, where its pod runs: the leader's last word outlives a worker."""
        runs = self.truth is not None and self.truth.state in ("Starting", "Loaded", "Serving")
        return self.report if runs else None

    @property
    def loaded(self) -> bool:
        """Its layers are in memory."""
        return self.state in ("Loaded", "Serving") or (self.truth is not None and self.truth.ready)

    @property
    def place(self) -> str:
        """Which stage this is, for people."""
        return f"pipeline {self.key.index} stage {self.key.stage} (pod {self.pod_name})"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One pipeline: to be kept, or on its way out."""

    key: PipelineKey
    name: str
    kept: bool
    stages: tuple[Stage, ...]
    report: PipelineReport | None
    """None while its leader is not heard."""

    @property
    def ready(self) -> bool:
        """Its leader says that a canary went round, and is not about to go."""
        leader = self.stages[0].truth if self.stages and self.stages[0].key.stage == 0 else None
        heard = self.report is not None and self.report.state == "Ready"
        return heard and leader is not None and not (leader.deleting or leader.failed)

    @property
    def place(self) -> str:
        """Which pipeline this is, for people."""
        return f"pipeline {self.key.index} ({self.name})"


@dataclass(frozen=True, slots=True)
class Router:
    """The front door: what its Deployment says of its pods, and what these say themselves."""

    exists: bool
    wanted: int
    available: int
    """Ready, of the newest shape or of an older one."""
    updated: int
    """Of the newest shape."""
    pods: tuple[tuple[str, PodTruth], ...]
    """By name."""
    refused: str = ""
    """Why the API server will not have one of its pods."""

    @property
    def settled(self) -> bool:
        """All that are wanted are there, and none is of an older shape."""
        return self.exists and self.available >= self.wanted and self.updated >= self.wanted


@dataclass(frozen=True)
class Situation:
    """One resource and all that belongs to it, at one moment."""

    observed: Observed
    deployment: PipelineDeployment | None
    """None when the spec is invalid."""
    records: Mapping[str, RevisionRecord]
    """By revision."""
    kept: tuple[PipelineKey, ...]
    profile: tuple[str, PodTruth] | None
    """The pod that profiles the model, by name, while there is one."""

    @property
    def owner(self) -> str:
        """Name of the resource."""
        name: str = self.observed.resource["metadata"]["name"]
        return name

    @property
    def generation(self) -> int:
        """Of the spec that this is about."""
        return int(self.observed.resource["metadata"].get("generation", 0))

    @property
    def wanted(self) -> int:
        """Pipelines that are asked for; those that are there, while nobody can tell."""
        return len(self.kept) if self.deployment is None else self.deployment.spec.replicas

    @cached_property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """Every pipeline that is kept or has pods, by key."""
        pods: dict[PipelineKey, dict[int, Object]] = defaultdict(dict)
        for pod in self.observed.of(POD).values():
            if (key := names.pod_key(pod)) is not None:
                pods[key.pipeline][key.stage] = pod
        kept = frozenset(self.kept)
        keys = sorted({*kept, *pods})
        return tuple(self._pipeline(key, key in kept, pods.get(key, {})) for key in keys)

    @cached_property
    def kept_pipelines(self) -> tuple[Pipeline, ...]:
        """Those that are to stay."""
        return tuple(pipeline for pipeline in self.pipelines if pipeline.kept)

    @property
    def leaving(self) -> tuple[Pipeline, ...]:
        """Those that are not to stay but are not gone yet."""
        return tuple(pipeline for pipeline in self.pipelines if not pipeline.kept)

    @property
    def stages(self) -> Iterator[Stage]:
        """Every stage of every pipeline, by key."""
        return (stage for pipeline in self.pipelines for stage in pipeline.stages)

    @property
    def kept_stages(self) -> Iterator[Stage]:
        """Every stage of the pipelines that are to stay, by key."""
        return (stage for stage in self.stages if stage.kept)

    @property
    def facts(self) -> tuple[PipelineFact, ...]:
        """What a rollout must know of the pipelines that are kept."""
        return tuple(PipelineFact(one.key, one.ready) for one in self.kept_pipelines)

    @cached_property
    def router(self) -> Router:
        """The front door."""
        deployment = self.observed.of(DEPLOYMENT).get(names.router(self.owner))
        pods = sorted(self.observed.router_pods.items())
        lacks = self.observed.lacks
        truths = tuple((name, pod_truth(pod, lacks.get(name, ""))) for name, pod in pods)
        return _router(deployment, truths)

    def keeping(self, kept: Collection[PipelineKey]) -> Situation:
        """The same, with other pipelines to be kept."""
        ordered = tuple(sorted(kept))
        if ordered == self.kept:
            return self
        return Situation(self.observed, self.deployment, self.records, ordered, self.profile)

    def _pipeline(self, key: PipelineKey, kept: bool, pods: Mapping[int, Object]) -> Pipeline:
        record = self.records.get(key.revision)
        planned = record.plan.stages if record is not None else ()
        numbers = {*pods, *(range(len(planned)) if kept else ())}
        report = self.observed.reports.get(key)
        stages = tuple(
            self._stage(
                PodKey(*key, number),
                kept,
                planned[number] if number < len(planned) else None,
                pods.get(number),
                report,
            )
            for number in sorted(numbers)
        )
        return Pipeline(key, names.pipeline_name(self.owner, key), kept, stages, report)

    def _stage(
        self,
        key: PodKey,
        kept: bool,
        planned: PlannedStage | None,
        pod: Object | None,
        report: PipelineReport | None,
    ) -> Stage:
        name = pod["metadata"]["name"] if pod is not None else names.pod_name(self.owner, key)
        return Stage(
            key,
            name,
            kept,
            planned,
            pod,
            pod_truth(pod, self.observed.lacks.get(name, "")) if pod is not None else None,
            report.stage(key.stage) if report is not None else None,
        )


def situation(
    observed: Observed,
    deployment: PipelineDeployment | None,
    records: Mapping[str, RevisionRecord],
    kept: Collection[PipelineKey],
    profile_pod: Object | None = None,
) -> Situation:
    """Sort what was observed.

    `deployment` is None when its spec is invalid, `kept` are the pipelines that are to stay, and
    `records` are those of their revisions.
    """
    profile = None
    if profile_pod is not None:
        name = profile_pod["metadata"]["name"]
        profile = (name, pod_truth(profile_pod, observed.lacks.get(name, "")))
    return Situation(observed, deployment, records, tuple(sorted(kept)), profile)


def read_deployment(resource: Object) -> PipelineDeployment:
    """The resource as its model; InvalidSpecError when it is none, whatever let it through."""
    metadata = resource["metadata"]
    document: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": metadata["name"], "namespace": metadata.get("namespace", "default")},
    }
    if resource.get("spec") is not None:
        document["spec"] = resource["spec"]
    try:
        return PipelineDeployment.model_validate(document, by_name=False)
    except ValidationError as error:
        wrong = (sentence(detail, PipelineDeployment) for detail in error.errors(include_url=False))
        raise InvalidSpecError("; ".join(wrong)) from None


def read_records(observed: Observed) -> dict[str, RevisionRecord]:
    """The record of every revision, by its name. What cannot be read is none of ours any more."""
    records = {}
    for child in observed.of(CONTROLLER_REVISION).values():
        try:
            record = RevisionRecord.model_validate(child.get("data"))
        except ValidationError:
            continue
        records[record.revision] = record
    return records


def _router(deployment: Object | None, pods: tuple[tuple[str, PodTruth], ...]) -> Router:
    if deployment is None:
        return Router(exists=False, wanted=1, available=0, updated=0, pods=pods)
    status = deployment.get("status") or {}
    generation = int(deployment["metadata"].get("generation", 0))
    current = int(status.get("observedGeneration", 0)) >= generation
    # The Deployment hears of its pods by way of a ReplicaSet, seconds after us on a busy cluster.
    ready = sum(truth.ready and not truth.deleting for _, truth in pods)
    updated = int(status.get("updatedReplicas", 0)) if current else 0
    if generation == _AS_MADE:
        updated = max(updated, ready)
    return Router(
        exists=True,
        wanted=int(deployment.get("spec", {}).get("replicas", 1)),
        available=max(ready, int(status.get("availableReplicas", 0))),
        updated=updated,
        pods=pods,
        refused=_refused(status) if current else "",
    )


def _refused(status: Object) -> str:
    for condition in status.get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return str(condition.get("message", ""))
    return ""
