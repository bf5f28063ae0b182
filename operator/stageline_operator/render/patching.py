"""A podTemplate put over a pod: merged, held against what the operator relies on, and validated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from stageline_api.pods import PodTemplate
from stageline_api.rendering import RenderError
from stageline_operator.kinds import Object
from stageline_operator.render.strategic import MergeError, merged

KUBERNETES = "1.37"
REFUSED = "PodTemplateRefused"
_OWN = {"name": "own"}
_OF_POD = ("hostname", "subdomain", "restartPolicy")
_OF_CONTAINER = ("image", "command", "args", "ports")
_OF_ENV = ("POD_IP", "STAGELINE_DOCUMENT", "STAGELINE_TERMINATION_LOG")


@dataclass(frozen=True, slots=True)
class Patched:
    """Whose pod is patched, and by what, for the sentences."""

    owner: str
    container: str
    template: str
    """The field that holds the patch."""


def patched(pod: Object, template: PodTemplate | None, where: Patched) -> Object:
    """`pod` with `template` over it; RenderError when that makes no pod, or not this one."""
    if template is None:
        return pod
    metadata = pod["metadata"]
    try:
        spec = merged(pod["spec"], template.spec)
    except MergeError as error:
        raise _refusal(where, f"is no strategic merge patch: {error}") from None
    made = {
        **pod,
        "metadata": {
            **metadata,
            "labels": metadata["labels"] | template.metadata.labels,
            "annotations": metadata["annotations"] | template.metadata.annotations,
        },
        "spec": spec,
    }
    if complaint := _invalid(_shape(made, pod["spec"])):
        raise _refusal(where, f"makes no valid pod: {complaint}")
    _check_relied_on(pod, made, where)
    return made


def _refusal(where: Patched, complaint: str) -> RenderError:
    return RenderError(f"{where.template} of {where.owner} {complaint}", REFUSED)


def _check_relied_on(before: Object, after: Object, where: Patched) -> None:
    wanted, found = _relied_on(before, where), _relied_on(after, where)
    for name, value in wanted.items():
        if found.get(name) != value:
            raise _refusal(
                where, f"changes {name}, which the operator relies on: take that out of it"
            )


def _relied_on(pod: Object, where: Patched) -> dict[str, Any]:
    metadata, spec = pod["metadata"], pod["spec"]
    own: Object = next((each for each in spec["containers"] if each["name"] == where.container), {})
    env = {entry["name"]: entry for entry in own.get("env", ())}
    return {
        **{f"label {name}": value for name, value in metadata["labels"].items()},
        **{f"spec.{name}": spec.get(name) for name in _OF_POD},
        **{f"{name} of container {where.container}": own.get(name) for name in _OF_CONTAINER},
        **{f"{name} of container {where.container}": env[name] for name in _OF_ENV if name in env},
    }


def _shape(pod: Object, own: Object) -> str:
    """What decides whether a pod is valid: not what it is called, nor what its stage is told.

    `own` is the spec before it was patched: what is still so in it was valid already.
    """
    spec = {**pod["spec"], "hostname": ""}
    if spec.get("serviceAccountName") == own["serviceAccountName"]:
        del spec["serviceAccountName"]
    if isinstance(volumes := spec.get("volumes"), list):
        spec["volumes"] = [_OWN if volume in own["volumes"] else volume for volume in volumes]
    if isinstance(containers := spec.get("containers"), list):
        spec["containers"] = [_without_document(each) for each in containers]
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    return json.dumps(whole, sort_keys=True)


def _without_document(container: Object) -> Object:
    if not isinstance(env := container.get("env"), list):
        return container
    told = [entry for entry in env if entry["name"] != "STAGELINE_DOCUMENT"]
    return {**container, "env": told}


@lru_cache(maxsize=1024)  # a pipeline's stages differ in nothing of this, nor from hour to hour
def _invalid(shape: str) -> str:
    """What Kubernetes' own schema has against a pod, empty when nothing."""
    error = next(_validator().iter_errors(json.loads(shape)), None)
    if error is None:
        return ""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.path)
    return f"{path.removeprefix('.')}: {error.message[:200]}"


@cache  # reading the schemas takes 50 ms
def _validator() -> Draft202012Validator:
    folder = f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict"
    pod, definitions = (
        Resource.from_contents(schema_contents(f"{folder}/{name}.json", KUBERNETES))
        for name in ("pod-v1", "_definitions")
    )
    return Draft202012Validator(pod.contents, registry=pod @ (definitions @ Registry()))
