"""What is to be done about one resource, from what is observed of it, and nothing else. Pure.

It reads as a story: what is there, which revision is asked for, which pipelines are to exist now,
which children follow from that, which pods are to come and to go, and what is to be told.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from stageline_api.rendering import RenderError
from stageline_api.resource import PipelineDeployment
from stageline_operator import names, pods
from stageline_operator.children import routers_to_wake, surplus, unlike, wished_children
from stageline_operator.decision import Decision, Notice
from stageline_operator.healing import Healing, heal
from stageline_operator.identities import identities
from stageline_operator.kinds import CONFIG_MAP, POD, Object
from stageline_operator.notices import notices
from stageline_operator.observed import Observed, PipelineKey, RevisionRecord
from stageline_operator.planning import Planning, planning
from stageline_operator.rollout import next_pipelines
from stageline_operator.settings import RenderSettings
from stageline_operator.situation import (
    InvalidSpecError,
    Situation,
    read_deployment,
    read_records,
    situation,
)
from stageline_operator.status import history, status


def decide(observed: Observed, settings: RenderSettings, now: datetime) -> Decision:
    """Everything that brings the resource nearer to what it should be, and how it is told."""
    try:
        deployment = read_deployment(observed.resource)
    except InvalidSpecError as error:
        return _left_alone(observed, str(error), now)
    planned, at = _look(observed, deployment, settings)
    if planned.wants_nodes:
        return Decision(wants_nodes=True)
    current = planned.record or _newest(at)
    at = at.keeping(_next(at, deployment, current))
    healing = heal(at.stages, history(at), now)
    children = wished_children(at, deployment, current, settings)
    known = identities(at, current, now)
    try:
        create = (*_profile_pod(observed, planned), *pods.missing(at, settings))
    except RenderError as error:  # of an old revision, under settings that were others then
        planned, create = replace(planned, refused=error.reason, message=str(error)), ()
    told = status(at, planned, healing, "", now)
    return Decision(
        first=unlike(observed, known.authority),
        apply=unlike(observed, (*known.held, *children)),
        patch=(*pods.relabelled(at), *routers_to_wake(observed, children)),
        delete=(
            *pods.to_go(at, healing, planned, now),
            *(surplus(observed, children) if current is not None else ()),
        ),
        create=create,
        status=told.status,
        status_waits=told.waits,
        notices=_notices(observed, told.status),
        deeds=known.notices,
        reading=planned.reading,
        again=_soonest(
            told.again,
            healing.again,
            known.again,
            planned.again,
            pods.next_profile(planned, at, now),
        ),
    )


def _left_alone(observed: Observed, invalid: str, now: datetime) -> Decision:
    """A spec that cannot be read changes nothing that runs."""
    at = situation(observed, None, read_records(observed), _kept(observed))
    told = status(at, Planning(), Healing(history=history(at)), invalid, now)
    return Decision(status=told.status, notices=_notices(observed, told.status), again=told.again)


def _look(
    observed: Observed, deployment: PipelineDeployment, settings: RenderSettings
) -> tuple[Planning, Situation]:
    """The revision that is asked for, and where everything stands."""
    records, own_pods = read_records(observed), observed.of(POD)
    planned = planning(
        observed.resource,
        deployment,
        records.values(),
        own_pods,
        settings,
        observed.nodes,
        observed.profiles,
    )
    if planned.record is not None:
        records[planned.record.revision] = planned.record
    wished = planned.profile_pod
    profile_pod = own_pods.get(wished["metadata"]["name"]) if wished is not None else None
    return planned, situation(observed, deployment, records, _kept(observed), profile_pod)


def _kept(observed: Observed) -> tuple[PipelineKey, ...]:
    """The pipelines that were to be kept, by the routers' document, the record of intent.

    Where somebody deleted that, every pipeline with a leader is.
    """
    config = observed.of(CONFIG_MAP).get(names.router(observed.resource["metadata"]["name"]))
    if (kept := names.kept_pipelines(config)) is not None:
        return kept
    staying = (pod for pod in observed.of(POD).values() if not _is_going(pod))
    keys = (key for pod in staying if (key := names.pod_key(pod)) is not None)
    return tuple(key.pipeline for key in keys if key.stage == 0)


def _newest(at: Situation) -> RevisionRecord | None:
    """The revision to go on with while the spec's own cannot be had (yet)."""
    kept = (at.records[key.revision] for key in at.kept if key.revision in at.records)
    return max(kept, key=lambda record: record.number, default=None)


def _next(
    at: Situation, deployment: PipelineDeployment, current: RevisionRecord | None
) -> tuple[PipelineKey, ...]:
    if current is None:
        return at.kept
    limits = deployment.spec.rollout
    return next_pipelines(
        at.facts,
        len(at.leaving),
        current.revision,
        deployment.spec.replicas,
        limits.max_surge,
        limits.max_unavailable,
    )


def _profile_pod(observed: Observed, planned: Planning) -> tuple[Object, ...]:
    wished = planned.profile_pod
    if wished is None or planned.record is not None or planned.waits:
        return ()
    return () if wished["metadata"]["name"] in observed.of(POD) else (wished,)


def _notices(observed: Observed, told: Object | None) -> tuple[Notice, ...]:
    return () if told is None else notices(observed.resource.get("status") or {}, told)


def _is_going(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _soonest(*waits: float | None) -> float | None:
    return min((wait for wait in waits if wait is not None), default=None)
