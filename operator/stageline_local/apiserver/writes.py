"""How a write becomes the next state of an object: pure functions, one for each verb.

What is particular to a kind (defaults, rules, names) is asked of `rules`; here is what all kinds
share: who may set which part, generations, deletion, and the fields that the server alone writes.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import choices
from typing import Any, Final

from stageline_local.apiserver import ownership
from stageline_local.apiserver.errors import conflict, precondition
from stageline_local.apiserver.kinds import Kind, Object
from stageline_local.apiserver.ownership import Manager
from stageline_local.apiserver.schema import Node

_SERVERS_OWN: Final = (
    *("uid", "resourceVersion", "creationTimestamp", "generation", "namespace", "name"),
    *("deletionTimestamp", "deletionGracePeriodSeconds", "generateName", "selfLink"),
)
_LINGER: Final = ("pods", "namespaces")  # others than the client have a say in their end
_SUFFIX: Final = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' own: no vowels, no words


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How an object is to be deleted."""

    grace_seconds: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a delete comes to: the object's last or next state, and whether it is gone."""

    object: Object
    gone: bool


@dataclass(frozen=True, slots=True)
class Write:
    """One write of one client."""

    kind: Kind
    node: Node
    manager: Manager
    now: datetime
    subresource: str = ""
    track: bool = field(default=True)
    """Whether fields have managers at all."""


def timestamp(moment: datetime) -> str:
    """RFC 3339, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def named(obj: Object) -> Object:
    """`obj` with a name made from metadata.generateName if it has none."""
    meta = obj["metadata"]
    if meta.get("name") or not meta.get("generateName"):
        return obj
    name = meta["generateName"][:58] + "".join(choices(_SUFFIX, k=5))
    return {**obj, "metadata": {**meta, "name": name}}


def created(write: Write, obj: Object, namespace: str) -> Object:
    """The first state of an object, but for defaults and claims."""
    sent = obj["metadata"]
    meta = {
        **{key: sent[key] for key in ("name", "generateName") if key in sent},
        **({"namespace": namespace} if write.kind.namespaced else {}),
        "uid": str(uuid.uuid4()),
        **({"generation": 1} if write.kind.counts_generations else {}),
        "creationTimestamp": timestamp(write.now),
        **{key: value for key, value in sent.items() if key not in _SERVERS_OWN and value},
    }
    rest = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
    if write.kind.has_status and write.kind.kind != "Node":  # which kubelets register with theirs
        rest.pop("status", None)
    head = {"kind": write.kind.kind, "apiVersion": write.kind.api_version}
    return {**head, **rest, "metadata": meta}


def updated(write: Write, old: Object, new: Object) -> Object:
    """The next state of an object. Refusal (409) if the client knew another one."""
    name, sent = old["metadata"]["name"], new.get("metadata", {})
    _check_identity(write.kind, old["metadata"], sent, name)
    if write.subresource == "status":
        result = {**old, "status": new.get("status")}
        if result["status"] is None:
            del result["status"]
        if write.kind.custom:  # built-in kinds take labels and the like there as well
            sent = {**old["metadata"], "managedFields": sent.get("managedFields")}
        return {**result, "metadata": _meta(old["metadata"], sent)}
    result = {**new, "kind": write.kind.kind, "apiVersion": write.kind.api_version}
    if write.kind.has_status:
        result.pop("status", None)
        if "status" in old:
            result["status"] = old["status"]
    return {**result, "metadata": _meta(old["metadata"], sent)}


def _meta(old: Object, sent: Object) -> Object:
    kept: Object = {key: old[key] for key in _SERVERS_OWN if key in old}
    free = {key: value for key, value in sent.items() if key not in _SERVERS_OWN and value}
    return {**kept, **free}


def _check_identity(kind: Kind, old: Object, sent: Object, name: str) -> None:
    version, uid = sent.get("resourceVersion"), sent.get("uid")
    if uid and uid != old["uid"]:
        raise conflict(
            kind,
            name,
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['uid']}",
        )
    if version and version != old["resourceVersion"]:
        raise conflict(kind, name)


def counted(kind: Kind, old: Object, new: Object) -> Object:
    """`new` with the next generation if anything but metadata and status has changed."""
    if not kind.counts_generations or _wishes(old) == _wishes(new):
        return new
    generation = old["metadata"].get("generation", 0) + 1
    return {**new, "metadata": {**new["metadata"], "generation": generation}}


def _wishes(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def claimed(write: Write, old: Object | None, new: Object) -> Object:
    """`new` with the claims of whoever wrote it."""
    if not write.track:
        return ownership.with_claims(new, {})
    before, after = old if old is not None else {"metadata": {}}, new
    if write.kind.has_status and write.subresource != "status":
        before, after = _without_status(before), _without_status(after)
    claims = ownership.updated(write.kind, write.node, before, after, write.manager)
    return ownership.with_claims(new, claims)


def _without_status(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key != "status"}


def is_same(old: Object, new: Object) -> bool:
    """Whether a write changes nothing, but perhaps when somebody said so."""
    if _timeless(old) != _timeless(new):
        return False
    return {key: value for key, value in old.items() if key != "metadata"} == {
        key: value for key, value in new.items() if key != "metadata"
    }


def _timeless(obj: Object) -> Any:
    claims = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in obj["metadata"].get("managedFields", ())
    ]
    return {**obj["metadata"], "managedFields": claims}


def deleted(kind: Kind, obj: Object, options: DeleteOptions, now: datetime) -> Deletion:
    """What comes of a delete: gone at once, or marked for those who have work to do first."""
    _check_preconditions(kind, obj, options)
    meta = dict(obj["metadata"])
    finalizers = _finalizers(meta.get("finalizers", []), options.propagation)
    grace = _grace(kind, obj, options)
    if not finalizers and "deletionTimestamp" not in meta and kind.plural not in _LINGER:
        return Deletion(obj, gone=True)
    known = meta.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" not in meta or (known is not None and grace < known):
        meta["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
        meta["deletionGracePeriodSeconds"] = grace
        if "generation" in meta and known is None:
            meta["generation"] += 1
    meta.pop("finalizers", None)
    if finalizers:
        meta["finalizers"] = finalizers
    result = {**obj, "metadata": meta}
    return Deletion(result, gone=ripe(kind, result))


def ripe(kind: Kind, obj: Object) -> bool:
    """Whether an object that is being deleted has nothing to wait for any more."""
    meta = obj["metadata"]
    if "deletionTimestamp" not in meta or meta.get("finalizers"):
        return False
    if kind.plural == "namespaces":
        return not obj.get("spec", {}).get("finalizers")
    return not meta.get("deletionGracePeriodSeconds")


def _finalizers(there: list[str], propagation: str) -> list[str]:
    rest = [name for name in there if name not in ("foregroundDeletion", "orphan")]
    match propagation:
        case "Foreground":
            return [*rest, "foregroundDeletion"]
        case "Orphan":
            return [*rest, "orphan"]
        case "Background":
            return rest
    return there


def _grace(kind: Kind, obj: Object, options: DeleteOptions) -> int:
    """Seconds that a pod gets; 0 where nobody would use them: no node, or it has ended."""
    if kind.plural != "pods":
        return 0
    spec = obj.get("spec", {})
    if not spec.get("nodeName") or obj.get("status", {}).get("phase") in ("Failed", "Succeeded"):
        return 0
    if options.grace_seconds is not None:
        return max(options.grace_seconds, 0)
    known = obj["metadata"].get("deletionGracePeriodSeconds")
    return int(spec.get("terminationGracePeriodSeconds", 30) if known is None else known)


def _check_preconditions(kind: Kind, obj: Object, options: DeleteOptions) -> None:
    meta = obj["metadata"]
    if options.uid and options.uid != meta["uid"]:
        raise precondition(
            kind,
            meta["name"],
            f"the UID in the precondition ({options.uid}) does not match the UID in record "
            f"({meta['uid']}). The object might have been deleted and then recreated",
        )
    if options.resource_version and options.resource_version != meta["resourceVersion"]:
        raise precondition(
            kind,
            meta["name"],
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match "
            f"the ResourceVersion in record ({meta['resourceVersion']}). "
            "The object might have been modified",
        )
