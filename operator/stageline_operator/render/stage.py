"""The pod of one stage."""

from __future__ import annotations

from math import ceil

from stageline_api.pods import ContainerResources
from stageline_api.quantity import parse_quantity
from stageline_api.rendering import Ring, drain_seconds, stage_document
from stageline_operator import names
from stageline_operator.kinds import POD, Object
from stageline_operator.labels import PIPELINE, REVISION, STAGE, STAGE_COMPONENT, common
from stageline_operator.observed import PipelineKey, PodKey, RevisionRecord
from stageline_operator.render import pods, secrets
from stageline_operator.render.metadata import child, owner, selector
from stageline_operator.render.patching import Patched, patched
from stageline_operator.render.source import Source, stage_source
from stageline_operator.settings import RenderSettings

PORT = 7070
LINKS_PORT = PORT + 1
"""Of links over sockets; the worker takes the port after its gRPC server's."""
CONTAINER = "worker"
_LISTEN = f"$(POD_IP):{PORT}"
_HEALTH = f"$(POD_IP):{pods.HEALTH_PORT}"
_TLS = "tls"
_HOST_LABEL = "kubernetes.io/hostname"


def stage_pod(
    resource: Object, record: RevisionRecord, key: PodKey, settings: RenderSettings
) -> Object:
    """The pod of the stage `key`, of the revision `record`; RenderError when it cannot be made."""
    name = names.pod_name(owner(resource), key)
    source = stage_source(resource, record, settings)
    made = child(
        resource,
        POD,
        name,
        STAGE_COMPONENT,
        _key_labels(key),
        spec=pods.pod_spec(
            resource,
            _container(resource, record, key, source, settings),
            source,
            _volumes(resource, record),
            hostname=name,
            subdomain=names.stages_service(owner(resource)),
            restartPolicy="Always",
            nodeSelector=_node_selector(record, key.stage),
            tolerations=pods.tolerations(record.spec, key.stage),
            topologySpreadConstraints=_spread(resource, record, key.stage),
        ),
    )
    made["metadata"]["annotations"] = {pods.DEFAULT_CONTAINER: CONTAINER}
    return _with_templates(made, resource, record, key.stage)


def stage_labels(resource: Object, key: PodKey) -> dict[str, str]:
    """All the labels by which a stage's pod is found."""
    return common(owner(resource), STAGE_COMPONENT) | _key_labels(key)


def leader_address(resource: Object, key: PipelineKey, settings: RenderSettings) -> str:
    """host:port of the first stage of a pipeline."""
    return stage_address(resource, PodKey(*key, 0), settings)


def stage_address(resource: Object, key: PodKey, settings: RenderSettings) -> str:
    """host:port by which the others find a stage, however often its pod is made anew."""
    service = names.stages_service(owner(resource))
    host = f"{names.pod_name(owner(resource), key)}.{service}"
    namespace = resource["metadata"]["namespace"]
    return f"{host}.{namespace}.svc.{settings.cluster_domain}:{PORT}"


def _key_labels(key: PodKey) -> dict[str, str]:
    return {REVISION: key.revision, PIPELINE: str(key.index), STAGE: str(key.stage)}


def _container(
    resource: Object,
    record: RevisionRecord,
    key: PodKey,
    source: Source,
    settings: RenderSettings,
) -> Object:
    document = _document(resource, record, key, source, settings)
    return pods.container(
        CONTAINER,
        record.image,
        source,
        command=["python", "-m", "stageline_worker", "stage"],
        env=(
            pods.pod_ip(),
            {"name": "STAGELINE_DOCUMENT", "value": document},
            {"name": "STAGELINE_TERMINATION_LOG", "value": pods.TERMINATION_LOG},
            {"name": "STAGELINE_GRACE_SECONDS", "value": f"{_grace(record, key.stage):g}"},
            *_threads(record.spec.resources_of(key.stage)),
        ),
        ports=[
            {"name": "grpc", "containerPort": PORT, "protocol": "TCP"},
            {"name": "links", "containerPort": LINKS_PORT, "protocol": "TCP"},
            pods.health_port(),
        ],
        resources=pods.resources(record.spec.resources_of(key.stage)),
        volumeMounts=[secrets.mount(_TLS, secrets.FOLDER)] if record.tls else [],
        **pods.probes("stage"),
    )


def _volumes(resource: Object, record: RevisionRecord) -> list[Object]:
    if not record.tls:
        return []
    return [secrets.volume(_TLS, names.certificate(owner(resource), "stage"))]


def _threads(asked: ContainerResources) -> list[Object]:
    """One for each CPU that the stage was given, where it says how many.

    Else one for each of the node's, which wait for each other at every step while neighbours have
    the CPUs: on two CPUs with four stages, a microbatch of 1 ms takes 500.
    """
    cpus = asked.limits.get("cpu") or asked.requests.get("cpu")
    if cpus is None:
        return []
    return [{"name": "OMP_NUM_THREADS", "value": str(max(1, ceil(parse_quantity(cpus))))}]


def _grace(record: RevisionRecord, stage: int) -> float:
    override = record.spec.override(stage)
    return drain_seconds(record.spec.pod_template, override.pod_template if override else None)


def _document(
    resource: Object,
    record: RevisionRecord,
    key: PodKey,
    source: Source,
    settings: RenderSettings,
) -> str:
    """Its document as JSON, in which Kubernetes puts the pod's own address."""
    stages = range(len(record.plan.stages))
    ring = Ring(
        model=owner(resource),
        pipeline=names.pipeline_name(owner(resource), key.pipeline),
        revision=record.revision,
        uri=source.uri,
        cache=source.cache,
        addresses=tuple(
            stage_address(resource, PodKey(*key.pipeline, stage), settings) for stage in stages
        ),
        credentials=secrets.FOLDER if record.tls else "",
    )
    document = stage_document(record.spec, record.plan, ring, key.stage, _LISTEN)
    rest = pods.literal(document.model_dump_json(exclude={"listen", "health"}))
    return f'{rest.removesuffix("}")},"listen":"{_LISTEN}","health":"{_HEALTH}"}}'


def _node_selector(record: RevisionRecord, stage: int) -> dict[str, str]:
    override = record.spec.override(stage)
    return dict(record.spec.node_selector) | dict(override.node_selector if override else {})


def _spread(resource: Object, record: RevisionRecord, stage: int) -> list[Object]:
    """The spec's own, or leaders on different hosts: one host's end is one pipeline's, then."""
    labels = selector(resource, STAGE_COMPONENT)
    if record.spec.topology_spread_constraints:
        return [
            {"labelSelector": {"matchLabels": labels}}
            | entry.model_dump(mode="json", exclude_none=True)
            for entry in record.spec.topology_spread_constraints
        ]
    if stage != 0:
        return []
    return [
        {
            "maxSkew": 1,
            "topologyKey": _HOST_LABEL,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels | {STAGE: "0"}},
        }
    ]


def _with_templates(made: Object, resource: Object, record: RevisionRecord, stage: int) -> Object:
    override = record.spec.override(stage)
    where = Patched(owner(resource), CONTAINER, "spec.podTemplate")
    made = patched(made, record.spec.pod_template, where)
    if override is None:
        return made
    where = Patched(owner(resource), CONTAINER, f"podTemplate in spec.stageOverrides of {stage}")
    return patched(made, override.pod_template, where)
