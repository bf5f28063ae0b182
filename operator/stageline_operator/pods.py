"""The pods of a resource: which are missing, which are to go, which lost their labels. Pure.

Desired pods are a set, (revision, pipeline, stage), held against those that are there. A pipeline
that is not kept goes leader first: its end drains what is in flight, then the other stages follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from stageline_operator import names, render
from stageline_operator.children import delete
from stageline_operator.decision import Delete, Patch
from stageline_operator.difference import covers
from stageline_operator.healing import Healing
from stageline_operator.kinds import POD, Object
from stageline_operator.labels import COMPONENT, PROFILE_COMPONENT
from stageline_operator.planning import Planning
from stageline_operator.settings import RenderSettings
from stageline_operator.situation import Pipeline, Situation
from stageline_operator.times import from_rfc3339

PROFILE_AGAIN: Final = timedelta(seconds=30)
"""From the making of a profile pod that failed (evicted, for example) to that of the next one."""


def missing(at: Situation, settings: RenderSettings) -> Iterator[Object]:
    """Stage pods of kept pipelines that are not there; RenderError when one cannot be made."""
    resource, there = at.observed.resource, at.observed.of(POD)
    for stage in at.kept_stages:
        record = at.records.get(stage.key.revision)
        if record is not None and names.pod_name(at.owner, stage.key) not in there:
            yield render.stage_pod(resource, record, stage.key, settings)


def to_go(at: Situation, healing: Healing, planned: Planning, now: datetime) -> Iterator[Delete]:
    """Pods that are to be replaced, whose pipeline is to go, or that are nobody's."""
    there = at.observed.of(POD)
    due = {replacement.name for replacement in healing.replace}
    for replacement in healing.replace:
        yield delete(POD, there[replacement.name], force=replacement.force)
    for pipeline in at.leaving:
        yield from (delete(POD, pod) for pod in _next_of(pipeline) if _name(pod) not in due)
    known = {stage.pod_name for stage in at.stages}
    for name, pod in there.items():
        if name not in known and not _is_going(pod) and not _is_needed(pod, planned, now):
            yield delete(POD, pod)


def relabelled(at: Situation) -> Iterator[Patch]:
    """Stage pods of kept pipelines whose labels somebody changed."""
    there = at.observed.of(POD)
    for stage in at.kept_stages:
        name = names.pod_name(at.owner, stage.key)
        labels = render.stage_labels(at.observed.resource, stage.key)
        if name in there and not covers(there[name]["metadata"].get("labels"), labels):
            yield Patch(POD, name, {"metadata": {"labels": labels}})


def next_profile(planned: Planning, at: Situation, now: datetime) -> float | None:
    """Seconds until a profile pod that failed is given up."""
    if planned.record is not None or at.profile is None or not at.profile[1].failed:
        return None
    pod = at.observed.of(POD)[at.profile[0]]
    return max((_made(pod) + PROFILE_AGAIN - now).total_seconds(), 0.0)


def _next_of(pipeline: Pipeline) -> list[Object]:
    """Of a pipeline that is to go: its leader, or all the others once that is gone."""
    pods = {stage.key.stage: stage.pod for stage in pipeline.stages if stage.pod is not None}
    turn = [pods[0]] if 0 in pods else list(pods.values())
    return [pod for pod in turn if not _is_going(pod)]


def _is_needed(pod: Object, planned: Planning, now: datetime) -> bool:
    """Whether a pod that is no stage is the one that takes the profile, and may still succeed."""
    labels = pod["metadata"].get("labels") or {}
    wished = planned.profile_pod
    if wished is None or _name(pod) != _name(wished):
        return bool(planned.refused) and labels.get(COMPONENT) == PROFILE_COMPONENT
    failed = (pod.get("status") or {}).get("phase") == "Failed"
    return not failed or now < _made(pod) + PROFILE_AGAIN


def _is_going(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _name(pod: Object) -> str:
    name: str = pod["metadata"]["name"]
    return name


def _made(pod: Object) -> datetime:
    return from_rfc3339(pod["metadata"]["creationTimestamp"])
