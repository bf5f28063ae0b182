"""The children of a resource beside its pods: which there should be, and which are too many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from stageline_api.rendering import RenderError
from stageline_api.resource import PipelineDeployment
from stageline_operator import render
from stageline_operator.decision import Delete, Patch
from stageline_operator.difference import is_as_wished, stamped
from stageline_operator.kinds import CHILDREN, CONFIG_MAP, POD, Kind, Object, kind_of
from stageline_operator.observed import Observed, RevisionRecord
from stageline_operator.settings import RenderSettings
from stageline_operator.situation import Situation


def wished_children(
    at: Situation,
    deployment: PipelineDeployment,
    current: RevisionRecord | None,
    settings: RenderSettings,
) -> tuple[Object, ...]:
    """Everything but pods, as it should be; `current` is the revision that is rolled out."""
    resource = at.observed.resource
    wished = [render.service_account(resource)]
    if current is not None:
        wished += [render.revision_object(resource, record) for record in _used(at, current)]
        wished += [
            render.stages_service(resource),
            render.router_service(resource, deployment),
            render.router_config(resource, deployment, current, at.kept, settings),
        ]
        wished += _routers(resource, deployment, current, settings)
        wished += [
            render.budget(resource, at.records[key.revision], key)
            for key in at.kept
            if key.revision in at.records
        ]
    return tuple(map(stamped, wished))


def _used(at: Situation, current: RevisionRecord) -> Iterator[RevisionRecord]:
    """The record of each revision that a pod may still have to be made of."""
    used = {current.revision, *(pipeline.key.revision for pipeline in at.pipelines)}
    return (record for name, record in sorted(at.records.items()) if name in used)


def _routers(
    resource: Object,
    deployment: PipelineDeployment,
    current: RevisionRecord,
    settings: RenderSettings,
) -> Iterator[Object]:
    try:
        yield render.router_deployment(resource, deployment, current, settings)
    except RenderError:  # of a spec that was refused: the routers that are there stay as they are
        return
    if (budget := render.router_budget(resource, deployment)) is not None:
        yield budget


def unlike(observed: Observed, wished: Iterable[Object]) -> tuple[Object, ...]:
    """Those of `wished` that are not there, or not so."""
    return tuple(
        obj
        for obj in wished
        if not is_as_wished(observed.of(kind_of(obj)).get(obj["metadata"]["name"]), obj)
    )


def surplus(observed: Observed, wished: Iterable[Object]) -> tuple[Delete, ...]:
    """Children, pods apart, that nobody wishes."""
    named = {(kind_of(obj), obj["metadata"]["name"]) for obj in wished}
    return tuple(
        delete(kind, child)
        for kind in CHILDREN
        if kind != POD
        for name, child in observed.of(kind).items()
        if (kind, name) not in named and "deletionTimestamp" not in child["metadata"]
    )


def routers_to_wake(observed: Observed, wished: Sequence[Object]) -> tuple[Patch, ...]:
    """A router learns of its new document at once, where a kubelet would take a minute."""
    document = next((obj for obj in wished if kind_of(obj) == CONFIG_MAP), None)
    if document is None:
        return ()
    annotations = {render.DOCUMENT_HASH: render.document_hash(document)}
    return tuple(
        Patch(POD, name, {"metadata": {"annotations": annotations}})
        for name, pod in observed.router_pods.items()
        if not annotations.items() <= (pod["metadata"].get("annotations") or {}).items()
        and "deletionTimestamp" not in pod["metadata"]
    )


def delete(kind: Kind, child: Object, *, force: bool = False) -> Delete:
    """To delete exactly this child."""
    return Delete(kind, child["metadata"]["name"], child["metadata"]["uid"], force)
