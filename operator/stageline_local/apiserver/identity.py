"""Whether an object that a client sent is the one that it means."""

from __future__ import annotations

from dataclasses import replace

from stageline_local.apiserver.errors import Problem, bad_request, conflict, invalid, shown
from stageline_local.apiserver.kinds import Kind, Object
from stageline_local.apiserver.store import Key


def check_target(kind: Kind, key: Key, body: Object) -> None:
    """The object must be what the URL says it is. Refusal (400) if it is not."""
    namespace, name = key
    version, said = body.get("apiVersion", kind.api_version), body.get("kind", kind.kind)
    if version != kind.api_version and said == kind.kind:
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version "
            f"({kind.api_version})"
        )
    if said != kind.kind and kind.custom:
        problem = Problem("kind", f"Invalid value: {shown(said)}: must be {kind.kind}")
        raise invalid(replace(kind, kind=str(said)), name, [problem])
    if said != kind.kind:
        raise bad_request(
            f'{said} in version "{version.split("/")[-1]}" cannot be handled as a {kind.kind}'
        )
    meta = body.get("metadata")
    if not isinstance(meta, dict):
        return
    if name and meta.get("name", name) != name:
        raise bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        )
    if namespace and meta.get("namespace", namespace) != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def check_version(kind: Kind, old: Object | None, config: Object) -> None:
    """An apply that names a resource version, or a uid, means that state of that object."""
    sent = config.get("metadata", {})
    name = sent.get("name", "")
    if old is None:
        if sent.get("uid"):
            raise conflict(
                kind,
                name,
                "uid mismatch: the provided object specified a uid, and no "
                "existing object was found",
            )
        return
    if sent.get("resourceVersion") not in (None, "", old["metadata"]["resourceVersion"]):
        raise conflict(kind, name)
