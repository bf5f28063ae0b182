"""The children of a resource beside its pods: which there should be, and which are too many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from stageline_api.rendering import RenderError
from stageline_api.resource import PipelineDeployment
from stageline_operator import render
from stageline_operator.decision import Delete, Patch
from stageline_operator.difference import is_as_wished, stamped
from stageline_operator.kinds import CHILDREN, CONFIG_MAP, POD, Kind, Object, kind_of
from stageline_operator.observed import Observed, RevisionRecord
from stageline_operator.settings import RenderSettings
from stageline_operator.situation import Situation

FIRST_DOCUMENT: Final = "stageline.dev/first-document"
"""Annotation of the routers' ConfigMap: the hash of the document that it was made with."""


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
            _router_config(at, deployment, current, settings),
        ]
        wished += _routers(resource, deployment, current, settings)
        wished += [
            render.budget(resource, at.records[key.revision], key)
            for key in at.kept
            if key.revision in at.records
        ]
    return tuple(map(stamped, wished))


def _router_config(
    at: Situation,
    deployment: PipelineDeployment,
    current: RevisionRecord,
    settings: RenderSettings,
) -> Object:
    """Says which document was its first: a router that was told of no other began with that."""
    resource, known = at.observed.resource, at.records
    secured = [key for key in at.kept if key.revision in known and known[key.revision].tls]
    made = render.router_config(resource, deployment, current, at.kept, settings, secured)
    live = at.observed.of(CONFIG_MAP).get(made["metadata"]["name"])
    first = render.document_hash(made) if live is None else _annotation(live, FIRST_DOCUMENT)
    made["metadata"]["annotations"] = {FIRST_DOCUMENT: first}
    return made


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
    config = next((obj for obj in wished if kind_of(obj) == CONFIG_MAP), None)
    if config is None:
        return ()
    document, first = render.document_hash(config), _annotation(config, FIRST_DOCUMENT)
    return tuple(
        Patch(POD, name, {"metadata": {"annotations": {render.DOCUMENT_HASH: document}}})
        for name, pod in observed.router_pods.items()
        if (_annotation(pod, render.DOCUMENT_HASH) or first) != document
        and "deletionTimestamp" not in pod["metadata"]
    )


def delete(kind: Kind, child: Object, *, force: bool = False) -> Delete:
    """To delete exactly this child."""
    return Delete(kind, child["metadata"]["name"], child["metadata"]["uid"], force)


def _annotation(obj: Object, name: str) -> str:
    value: str = (obj["metadata"].get("annotations") or {}).get(name, "")
    return value
