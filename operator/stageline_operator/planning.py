"""From a resource to the revision that it asks for: profile, plan, record. Pure.

What the plan refuses never becomes a revision, so no stage pod is ever made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from stageline_api.plan import Plan, PlanError, plan
from stageline_api.plan_request import PlanRequest, plan_request
from stageline_api.profile import ModelProfile
from stageline_api.rendering import RenderError, speaks_tls
from stageline_api.resource import PipelineDeployment
from stageline_operator.decision import Reading
from stageline_operator.devices import Nodes, answered, asks_nodes
from stageline_operator.kinds import Object
from stageline_operator.observed import PodKey, RevisionRecord, SharedProfile
from stageline_operator.profiling import Profiling, profiling
from stageline_operator.render import revision, router_deployment, stage_pod
from stageline_operator.settings import RenderSettings

_NODES_AGAIN_SECONDS = 60.0
"""While the nodes that there are do not do: another one may join, and nobody tells."""


@dataclass(frozen=True, slots=True)
class Planning:
    """What came of it: a record, or why there is none (yet)."""

    record: RevisionRecord | None = None
    profile_pod: Object | None = None
    """The pod that takes the profile, as it should be, until a stored record has the profile."""
    reading: Reading | None = None
    """What its profile means for others who want the same."""
    refused: str = ""
    """The reason of a refusal that only another spec can mend, in one word."""
    message: str = ""
    """The refusal, or why the profile cannot be used, as a sentence."""
    wants_nodes: bool = False
    """The memory of GPUs is only known by the nodes that have them, and those were not read."""
    again: float | None = None
    """Seconds after which it may go otherwise, though nobody tells."""

    @property
    def waits(self) -> bool:
        """Whether the pod of another resource reads the model."""
        return self.reading is not None and not self.reading.own


def planning(
    resource: Object,
    deployment: PipelineDeployment,
    records: Iterable[RevisionRecord],
    pods: Mapping[str, Object],
    settings: RenderSettings,
    nodes: Nodes | None = None,
    profiles: Mapping[str, SharedProfile] = MappingProxyType({}),
) -> Planning:
    """Where the resource stands between its spec and a revision that can be started.

    `records` are those of its revisions, `pods` its own by name, `nodes` those of the cluster, if
    they were read, `profiles` what pods of others read, by subject.
    """
    known = sorted(records, key=lambda record: record.number)
    try:
        seen = profiling(resource, deployment, known, pods, profiles, settings)
        return _planning(resource, deployment, known, seen, settings, nodes)
    except _DoNotFitError as error:
        again = _NODES_AGAIN_SECONDS
        return Planning(refused="PlanRefused", message=str(error), again=again)
    except PlanError as error:
        return Planning(refused="PlanRefused", message=str(error))
    except _OtherModelError as error:
        return Planning(refused="ModelChanged", message=str(error))
    except RenderError as error:
        return Planning(refused=error.reason, message=str(error))


def _planning(
    resource: Object,
    deployment: PipelineDeployment,
    known: list[RevisionRecord],
    seen: Profiling,
    settings: RenderSettings,
    nodes: Nodes | None,
) -> Planning:
    """The same; what is refused is raised."""
    pod, profile, reading = seen.pod, seen.profile, seen.reading
    if profile is None:
        return Planning(profile_pod=pod, reading=reading, message=seen.complaint, again=seen.again)
    _check_same_model(deployment, profile, known)
    request = plan_request(deployment)
    planned = _known_plan(deployment, request, profile, known)
    if planned is None and nodes is None and asks_nodes(request):
        return Planning(profile_pod=pod, wants_nodes=True)
    planned = planned or _made_plan(profile, request, nodes or Nodes())
    record = _record(deployment, profile, planned, known, settings)
    if record not in known:
        _check_renders(resource, deployment, record, settings)
    return Planning(record=record, profile_pod=pod, reading=reading)


class _OtherModelError(Exception):
    """The spec names a model that clients of the old one would not know."""


class _DoNotFitError(PlanError):
    """There is no plan for the nodes that there are."""


class _Planned(NamedTuple):
    """A plan, and what nodes have to do with it (RevisionRecord.devices)."""

    plan: Plan
    devices: str


def _known_plan(
    deployment: PipelineDeployment,
    asked: PlanRequest,
    profile: ModelProfile,
    known: list[RevisionRecord],
) -> _Planned | None:
    """A plan is made once: another planner, or a node that joins, moves nothing that runs."""
    for record in reversed(known):
        before = deployment.model_copy(update={"spec": record.spec})
        if record.profile == profile and plan_request(before) == asked:
            return _Planned(record.plan, record.devices)
    return None


def _made_plan(profile: ModelProfile, request: PlanRequest, nodes: Nodes) -> _Planned:
    if not asks_nodes(request):
        return _Planned(plan(profile, request), "")
    answer = answered(request, nodes)
    try:
        made = plan(profile, answer.request)
    except PlanError as error:
        raise _DoNotFitError(f"{error}; {answer.words}") from error
    return _Planned(made, answer.words if made.memory_checked == answer.known else "")


def _check_same_model(
    deployment: PipelineDeployment, profile: ModelProfile, known: list[RevisionRecord]
) -> None:
    """Old and new pipelines answer behind one name, so they must take and give the same."""
    if not known:
        return
    before = known[-1].profile
    if (before.architecture, before.task) != (profile.architecture, profile.task):
        raise _OtherModelError(
            f"spec.model.uri {deployment.spec.model.uri} holds a {profile.architecture}, but "
            f"{deployment.metadata.name} serves a {before.architecture}, and clients of one would "
            "be answered by the other: make another PipelineDeployment for it"
        )


def _record(
    deployment: PipelineDeployment,
    profile: ModelProfile,
    planned: _Planned,
    known: list[RevisionRecord],
    settings: RenderSettings,
) -> RevisionRecord:
    image = deployment.spec.image or settings.worker_image
    name = revision(deployment, planned.plan, image)
    for record in known:
        if record.revision == name:
            return record
    number = max((record.number for record in known), default=0) + 1
    return RevisionRecord(
        revision=name,
        number=number,
        image=image,
        tls=speaks_tls(deployment.spec),
        spec=deployment.spec,
        profile=profile,
        plan=planned.plan,
        devices=planned.devices,
    )


def _check_renders(
    resource: Object,
    deployment: PipelineDeployment,
    record: RevisionRecord,
    settings: RenderSettings,
) -> None:
    for stage in range(len(record.plan.stages)):
        stage_pod(resource, record, PodKey(record.revision, 0, stage), settings)
    router_deployment(resource, deployment, record, settings)
