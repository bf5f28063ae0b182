"""What stands around the pods: names, an identity, budgets, and the record of a revision."""

from __future__ import annotations

from stageline_operator import names
from stageline_operator.kinds import (
    CONTROLLER_REVISION,
    DISRUPTION_BUDGET,
    SERVICE,
    SERVICE_ACCOUNT,
    Object,
)
from stageline_operator.labels import PIPELINE, REVISION, STAGE_COMPONENT
from stageline_operator.observed import PipelineKey, RevisionRecord
from stageline_operator.render.metadata import child, owner, selector
from stageline_operator.render.stage import PORT


def stages_service(resource: Object) -> Object:
    """Gives every stage a host name, from before it is ready: it connects while it loads."""
    return child(
        resource,
        SERVICE,
        names.stages_service(owner(resource)),
        STAGE_COMPONENT,
        spec={
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(resource, STAGE_COMPONENT),
            "ports": [{"name": "grpc", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    )


def service_account(resource: Object) -> Object:
    """Whose pods they are. It may do nothing, and they get no token."""
    name = names.service_account(owner(resource))
    return child(
        resource, SERVICE_ACCOUNT, name, STAGE_COMPONENT, automountServiceAccountToken=False
    )


def budget(resource: Object, record: RevisionRecord, key: PipelineKey) -> Object:
    """Lets nodes be emptied one stage at a time: a pipeline that lacks one lacks no other."""
    labels = {REVISION: key.revision, PIPELINE: str(key.index)}
    return child(
        resource,
        DISRUPTION_BUDGET,
        names.pipeline_name(owner(resource), key),
        STAGE_COMPONENT,
        labels,
        spec={
            "minAvailable": len(record.plan.stages) - 1,
            "selector": {"matchLabels": selector(resource, STAGE_COMPONENT) | labels},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )


def revision_object(resource: Object, record: RevisionRecord) -> Object:
    """Keeps all from which the pods of a revision are made."""
    return child(
        resource,
        CONTROLLER_REVISION,
        names.revision(owner(resource), record.revision),
        STAGE_COMPONENT,
        {REVISION: record.revision},
        # Data that is stored cannot be changed: what an older operator did not know is left out.
        data=record.model_dump(mode="json", exclude=None if record.devices else {"devices"}),
        revision=record.number,
    )
