"""What the server has, for clients that ask: groups, versions, resources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stageline_local.apiserver.kinds import Kind, Object
from stageline_local.apiserver.registry import Registry

VERSION: Final = {
    "major": "1",
    "minor": "37",
    "gitVersion": "v1.37.0-stageline",
    "platform": "linux/amd64",
}
_VERBS: Final = (
    *("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"),
)
_OF_SUBRESOURCE: Final = {
    "status": ["get", "patch", "update"],
    "scale": ["get", "patch", "update"],
    "finalize": ["update"],
    "log": ["get"],
    "binding": ["create"],
    "eviction": ["create"],
}
_SUBRESOURCE_KINDS: Final = {
    "scale": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
    "eviction": {"group": "policy", "version": "v1", "kind": "Eviction"},
    "binding": {"kind": "Binding"},
}


def answer(registry: Registry, path: str) -> Object | None:
    """The document at `path`; None if it is no path of discovery."""
    kinds = [served.kind for served in registry]
    match path.strip("/").split("/"):
        case ["version"]:
            return dict(VERSION)
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            groups = sorted({kind.group for kind in kinds if kind.group})
            found = [_group(group, kinds) for group in groups]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
        case ["apis", group] if any(kind.group == group for kind in kinds):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, kinds)}
        case ["api", version]:
            return _resources(kinds, "", version)
        case ["apis", group, version]:
            return _resources(kinds, group, version)
    return None


def _group(group: str, kinds: Sequence[Kind]) -> Object:
    versions = sorted({kind.version for kind in kinds if kind.group == group}, key=_rank)
    found = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": found, "preferredVersion": found[0]}


def _rank(version: str) -> tuple[bool, str]:
    """Stable versions come first."""
    return "alpha" in version or "beta" in version, version


def _resources(kinds: Sequence[Kind], group: str, version: str) -> Object | None:
    here = [kind for kind in kinds if (kind.group, kind.version) == (group, version)]
    if not here:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": here[0].api_version,
        "resources": [resource for kind in here for resource in _of_kind(kind)],
    }


def _of_kind(kind: Kind) -> list[Object]:
    plain: Object = {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(_VERBS),
    }
    if kind.short_names:
        plain["shortNames"] = list(kind.short_names)
    if kind.categories:
        plain["categories"] = list(kind.categories)
    return [plain] + [
        {
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            **_SUBRESOURCE_KINDS.get(name, {}),
            "verbs": _OF_SUBRESOURCE[name],
        }
        for name in kind.subresources
    ]
