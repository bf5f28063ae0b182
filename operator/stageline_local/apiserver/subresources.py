"""The subresources that are more than a part of the object: scale, binding, eviction."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from stageline_local.apiserver.api import Api, Target
from stageline_local.apiserver.errors import Refusal, bad_request, conflict
from stageline_local.apiserver.jsonpath import at, with_value
from stageline_local.apiserver.kinds import BUILT_IN, Object
from stageline_local.apiserver.writes import DeleteOptions, timestamp

_BUDGETS: Final = next(kind for kind in BUILT_IN if kind.plural == "poddisruptionbudgets")
_EVICTED: Final = {
    "type": "DisruptionTarget",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}
_ENDED: Final = ("Succeeded", "Failed")


def scale(target: Target, obj: Object) -> Object:
    """The Scale of an object."""
    wanted, counted, selector = _scale_paths(target)
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    found = at(obj, selector) if selector else None
    if isinstance(found, dict):
        found = ",".join(f"{key}={value}" for key, value in sorted(found.items()))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": at(obj, wanted)} if at(obj, wanted) is not None else {},
        "status": {
            "replicas": at(obj, counted) or 0,
            **({"selector": found} if found else {}),
        },
    }


def rescaled(target: Target, obj: Object, wish: Any) -> Object:
    """`obj` with what a Scale wishes. Refusal (400, 422) if that is no number of replicas."""
    spec = wish.get("spec") if isinstance(wish, dict) else None
    replicas = spec.get("replicas", 0) if isinstance(spec, dict) else None
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise bad_request(
            'Scale in version "v1" cannot be handled as a Scale: json: cannot unmarshal '
            "spec.replicas into Go struct field ScaleSpec.spec.replicas of type int32"
        )
    if replicas < 0 and not target.kind.custom:
        message = f'Scale.autoscaling "{target.key[1]}" is invalid: spec.replicas: Invalid value: '
        raise Refusal(422, "Invalid", f"{message}{replicas}: must be greater than or equal to 0")
    version = wish.get("metadata", {}).get("resourceVersion") or obj["metadata"]["resourceVersion"]
    changed = with_value(obj, _scale_paths(target)[0], replicas)
    return {**changed, "metadata": {**changed["metadata"], "resourceVersion": version}}


def _scale_paths(target: Target) -> tuple[str, str, str]:
    if target.kind.custom:
        paths = target.served.declared["subresources"]["scale"]
        return (
            paths["specReplicasPath"],
            paths["statusReplicasPath"],
            paths.get("labelSelectorPath", ""),
        )
    return ".spec.replicas", ".status.replicas", ".spec.selector.matchLabels"


def bind(api: Api, target: Target, binding: Any) -> None:
    """Give a pod to a node."""
    pod = api.get(target)
    node = binding.get("target", {}).get("name") if isinstance(binding, dict) else None
    if not node:
        raise bad_request("a binding needs target.name, the node")
    taken = pod["spec"].get("nodeName")
    if taken or "deletionTimestamp" in pod["metadata"]:
        name = target.key[1]
        why = (
            f'pod {name} is already assigned to node "{taken}"'
            if taken
            else f"pod {name} is being deleted, cannot be assigned to a host"
        )
        raise conflict(replace(target.kind, plural="pods/binding"), name, why)
    bound = {**pod, "spec": {**pod["spec"], "nodeName": node}}
    api.store.put(target.kind, target.key, _with_condition(bound, {"type": "PodScheduled"}))


def evict(api: Api, target: Target, options: DeleteOptions, dry_run: bool) -> None:
    """Delete a pod unless its disruption budget forbids it. Refusal (429) if it does."""
    pod = api.get(target)
    ended = pod.get("status", {}).get("phase") in (*_ENDED, "Pending")
    if not ended and "deletionTimestamp" not in pod["metadata"]:
        for budget in api.store.all(_BUDGETS, target.key[0]):
            wanted = budget["spec"].get("selector", {}).get("matchLabels", {})
            labels = pod["metadata"].get("labels", {})
            if wanted and all(labels.get(key) == value for key, value in wanted.items()):
                _spend(api, budget, dry_run)
    if not dry_run and "deletionTimestamp" not in pod["metadata"]:
        api.store.put(target.kind, target.key, _with_condition(pod, _EVICTED))
    api.delete(target, options, dry_run)


def _with_condition(pod: Object, condition: Object) -> Object:
    status = pod.get("status", {})
    others = [each for each in status.get("conditions", ()) if each["type"] != condition["type"]]
    now = {"lastProbeTime": None, "lastTransitionTime": timestamp(datetime.now(UTC))}
    true = {**condition, "status": "True", **now}
    return {**pod, "status": {**status, "conditions": [*others, true]}}


def _spend(api: Api, budget: Object, dry_run: bool) -> None:
    status, name = budget["status"], budget["metadata"]["name"]
    allowed = status.get("disruptionsAllowed", 0)
    if allowed < 1:
        cause = {
            "reason": "DisruptionBudget",
            "message": f"The disruption budget {name} needs {status.get('desiredHealthy', 0)} "
            f"healthy pods and has {status.get('currentHealthy', 0)} currently",
        }
        raise Refusal(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
            {"causes": [cause]},
        )
    if not dry_run:
        spent = {**budget, "status": {**status, "disruptionsAllowed": allowed - 1}}
        api.store.put(_BUDGETS, (budget["metadata"]["namespace"], name), spent)
