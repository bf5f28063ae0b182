"""Strategic merge patches of a PodSpec, as Kubernetes itself merges them.

Maps are merged, null removes, scalars and lists replace, except that a list whose entries have a
key of their own is merged by it. `$patch: delete` removes an entry, `$patch: replace` replaces a
map or a list, `$retainKeys` drops what it does not list. Entries that a merge adds come first,
as Kubernetes has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Map = Mapping[str, Any]

_PATCH, _RETAIN = "$patch", "$retainKeys"


class MergeError(Exception):
    """The patch is none; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Keyed:
    """A list whose entries are merged by `key`, and the lists inside an entry that are, too."""

    key: str
    inside: Mapping[str, Keyed] = field(default_factory=dict)


_CONTAINERS = Keyed(
    "name",
    {
        "env": Keyed("name"),
        "ports": Keyed("containerPort"),
        "volumeMounts": Keyed("mountPath"),
        "volumeDevices": Keyed("devicePath"),
    },
)
# The patchMergeKey tags of k8s.io/api/core/v1; all other lists of a PodSpec are replaced.
POD_SPEC: Mapping[str, Keyed] = {
    "containers": _CONTAINERS,
    "initContainers": _CONTAINERS,
    "ephemeralContainers": _CONTAINERS,
    "volumes": Keyed("name"),
    "imagePullSecrets": Keyed("name"),
    "hostAliases": Keyed("ip"),
    "topologySpreadConstraints": Keyed("topologyKey"),
    "resourceClaims": Keyed("name"),
    "schedulingGates": Keyed("name"),
}


def merged(base: Map, patch: Map, lists: Mapping[str, Keyed] = POD_SPEC, path: str = "spec") -> Any:
    """`base` with `patch` put over it; neither is changed. MergeError says what is no patch."""
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != _PATCH}
    if directive == "delete":
        return {}
    _check_directives(patch, path)
    made = _retained(base, patch.get(_RETAIN), path)
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif name != _RETAIN:
            made[name] = _value(made.get(name), value, lists.get(name), f"{path}.{name}")
    return made


def _check_directives(patch: Map, path: str) -> None:
    for name in patch:
        if name.startswith("$") and name != _RETAIN:
            raise MergeError(
                f"{path} has {name}: {patch[name]}, use $patch: delete, $patch: replace or "
                "$retainKeys"
            )


def _retained(base: Map, kept: Any, path: str) -> dict[str, Any]:
    if kept is None:
        return dict(base)
    if not isinstance(kept, list):
        raise MergeError(f"{path} has a $retainKeys that is no list of names")
    return {name: value for name, value in base.items() if name in kept}


def _value(base: Any, patch: Any, keyed: Keyed | None, path: str) -> Any:
    if isinstance(patch, Mapping):
        return merged(base if isinstance(base, Mapping) else {}, patch, {}, path)
    if keyed is not None and isinstance(patch, list):
        return _merged_list(base if isinstance(base, list) else [], patch, keyed, path)
    return patch


def _merged_list(base: list[Any], patch: list[Any], keyed: Keyed, path: str) -> list[Any]:
    for entry in patch:
        if not isinstance(entry, Mapping):
            raise MergeError(f"{path} has an entry that is no mapping")
    plain = [entry for entry in patch if entry.get(_PATCH) not in ("replace", "delete")]
    if any(entry.get(_PATCH) == "replace" for entry in patch):
        return plain
    gone = [_key(entry, keyed, path) for entry in patch if entry.get(_PATCH) == "delete"]
    left = [entry for entry in base if _key(entry, keyed, path) not in gone]
    order = [_key(entry, keyed, path) for entry in left]
    known = dict(zip(order, left, strict=True))
    own: dict[Any, Any] = {}
    for entry in plain:
        key = _key(entry, keyed, path)
        before: Map = own.get(key) or known.get(key) or {}
        own[key] = merged(before, entry, keyed.inside, f"{path}[{key}]")
    others = [entry for key, entry in known.items() if key not in own]
    return _woven(others, list(own.values()), order, keyed.key)


def _key(entry: Map, keyed: Keyed, path: str) -> Any:
    if not isinstance(entry.get(keyed.key), str | int):
        raise MergeError(f"{path} has an entry without {keyed.key}, by which they are merged")
    return entry[keyed.key]


def _woven(others: Sequence[Any], own: Sequence[Any], order: Sequence[Any], key: str) -> list[Any]:
    """What the patch has in its order, the rest in the order of before, as far as both go."""
    made: list[Any] = []
    waiting, coming = list(others), list(own)
    while waiting and coming:
        known = coming[0][key] in order
        first = known and order.index(waiting[0][key]) < order.index(coming[0][key])
        made.append((waiting if first else coming).pop(0))
    return made + waiting + coming
