"""Where a request points to: the resource, object and subresource in a URL's path."""

from __future__ import annotations

from typing import NamedTuple

from stageline_local.apiserver.errors import no_such_path
from stageline_local.apiserver.registry import Registry, Served


class Place(NamedTuple):
    """A collection (no name), an object, or a subresource of one."""

    served: Served
    namespace: str
    name: str
    subresource: str


def place(registry: Registry, path: str) -> Place:
    """What `path` names. Refusal (404) if the server has no such thing."""
    match path.strip("/").split("/"):
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            raise no_such_path()
    namespace, rest = _namespace(group, rest)
    if not 1 <= len(rest) <= 3:
        raise no_such_path()
    plural, name, subresource = [*rest, "", ""][:3]
    served = registry.find(group, version, plural)
    if served is None or (namespace and not served.kind.namespaced):
        raise no_such_path()
    if subresource and subresource not in served.kind.subresources:
        raise no_such_path()
    return Place(served, namespace, name, subresource)


def _namespace(group: str, rest: list[str]) -> tuple[str, list[str]]:
    """The namespace in a path, and what follows; a namespace may be the object itself."""
    if rest[:1] != ["namespaces"] or len(rest) < 3:
        return "", rest
    if group == "" and len(rest) == 3 and rest[2] in ("status", "finalize"):
        return "", rest
    return rest[1], rest[2:]
