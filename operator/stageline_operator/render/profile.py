"""The pod that reads what a model weighs, once, before anything is planned."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from stageline_api.pods import PodTemplate
from stageline_api.resource import PipelineDeployment
from stageline_operator import names
from stageline_operator.kinds import POD, Object
from stageline_operator.labels import PROFILE_COMPONENT, SUBJECT
from stageline_operator.render import pods
from stageline_operator.render.metadata import child, owner
from stageline_operator.render.patching import Patched, patched
from stageline_operator.render.source import model_source
from stageline_operator.settings import RenderSettings

CONTAINER = "profile"
_HASH_LENGTH = 10
_REQUESTS = {"cpu": "100m", "memory": "512Mi"}
# Of the stages' patch, what it takes to start and to reach the model; no sidecar, or it never ends.
_STAGES_ONLY = ("containers", "initContainers", "topologySpreadConstraints", "affinity")
_OF_WORKER = ("name", "env", "envFrom", "volumeMounts", "securityContext")


def profile_subject(deployment: PipelineDeployment) -> str:
    """Equal as long as a profile stays true: the model is the same, read as the same user."""
    model = deployment.spec.model
    return _hash([model.uri, model.secret_name])


def profile_pod(
    resource: Object, deployment: PipelineDeployment, settings: RenderSettings
) -> Object:
    """The pod for the model of `deployment`; RenderError when it cannot be read.

    Its name changes with all that is in it, so that one which cannot start is given up as soon as
    the spec or the operator's settings say otherwise. Its subject does too, but for whose it is.
    """
    spec = deployment.spec
    source = model_source(owner(resource), spec.model, settings)
    container = pods.container(
        CONTAINER,
        spec.image or settings.worker_image,
        source,
        command=["python", "-m", "stageline_worker", "profile"],
        args=[pods.literal(source.uri), "--termination-log", pods.TERMINATION_LOG],
        resources={"requests": _REQUESTS},
    )
    body = pods.pod_spec(
        resource,
        container,
        source,
        restartPolicy="OnFailure",
        nodeSelector=dict(spec.node_selector),
        tolerations=pods.tolerations(spec),
    )
    made = child(resource, POD, "", PROFILE_COMPONENT, spec=body)
    subject = _subject(deployment, body)
    made["metadata"]["annotations"] = {pods.DEFAULT_CONTAINER: CONTAINER}
    made["metadata"]["name"] = names.profile_pod(owner(resource), subject)
    where = Patched(owner(resource), CONTAINER, "spec.podTemplate")
    made = patched(made, _of_profile(spec.pod_template), where)
    made["metadata"]["annotations"] |= {SUBJECT: subject}  # a patch must not claim another's
    return made


def subject_of(pod: Object) -> str:
    """What tells a profile pod from others: equal in a namespace where they read the same."""
    subject: str = pod["metadata"]["annotations"][SUBJECT]
    return subject


def _subject(deployment: PipelineDeployment, body: Object) -> str:
    """Of all that makes a difference to what is read, which the own ServiceAccount does not."""
    template = _of_profile(deployment.spec.pod_template)
    patch = template.model_dump() if template is not None else None
    return _hash([{**body, "serviceAccountName": ""}, patch, profile_subject(deployment)])


def _of_profile(template: PodTemplate | None) -> PodTemplate | None:
    if template is None:
        return None
    spec = {name: value for name, value in template.spec.items() if name not in _STAGES_ONLY}
    containers = template.spec.get("containers")
    for each in containers if isinstance(containers, list) else ():
        if isinstance(each, dict) and each.get("name") == "worker" and "$patch" not in each:
            mine = {name: value for name, value in each.items() if name in _OF_WORKER}
            spec["containers"] = [{**mine, "name": CONTAINER}]
    return template.model_copy(update={"spec": spec})


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
