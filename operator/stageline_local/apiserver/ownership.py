"""Server-side apply: who said which field, what goes when they no longer do, and who disagrees.

The algorithm is that of sigs.k8s.io/structured-merge-diff: merge what is applied into what is
there, take out what the manager said before and nobody says now, then look whose fields changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from stageline_local.apiserver.errors import Refusal
from stageline_local.apiserver.fieldsets import (
    Paths,
    difference,
    dotted,
    element,
    from_fields_v1,
    is_granular,
    named_ancestors,
    said,
    to_fields_v1,
)
from stageline_local.apiserver.kinds import Kind, Object
from stageline_local.apiserver.schema import Node

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_NOBODYS: Final = {
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            *("name", "namespace", "generateName", "uid", "resourceVersion", "generation"),
            *("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
            *("selfLink", "managedFields"),
        )
    ),
}


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes, how, and when."""

    name: str
    operation: str
    """Apply or Update."""
    subresource: str
    time: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The fields that one manager has said last."""

    manager: Manager
    api_version: str
    paths: frozenset[tuple[str, ...]]

    @property
    def key(self) -> tuple[str, str, str]:
        """Two claims with the same key are the same manager's."""
        return self.manager.name, self.manager.operation, self.manager.subresource


Claims = Mapping[tuple[str, str, str], Claim]


def claims_of(obj: Object) -> dict[tuple[str, str, str], Claim]:
    """What metadata.managedFields says."""
    found = {}
    for entry in obj.get("metadata", {}).get("managedFields") or ():
        if not entry:
            continue  # a client's way to say: forget them all
        manager = Manager(
            entry.get("manager", ""),
            entry.get("operation", "Update"),
            entry.get("subresource", ""),
            entry.get("time", ""),
        )
        paths = frozenset(from_fields_v1(entry.get("fieldsV1", {})))
        claim = Claim(manager, entry.get("apiVersion", ""), paths)
        found[claim.key] = claim
    return found


def with_claims(obj: Object, claims: Claims) -> Object:
    """`obj` with these claims as its metadata.managedFields."""
    entries = [_entry(claim) for claim in claims.values() if claim.paths]
    meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": {**meta, **({"managedFields": entries} if entries else {})}}


def _entry(claim: Claim) -> Object:
    manager = claim.manager
    return {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": claim.api_version,
        "time": manager.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": to_fields_v1(set(claim.paths)),
        **({"subresource": manager.subresource} if manager.subresource else {}),
    }


def updated(kind: Kind, node: Node, old: Object, new: Object, manager: Manager) -> Claims:
    """The claims after `manager` has changed `old` to `new` by anything but apply."""
    given = new.get("metadata", {}).get("managedFields")
    claims = claims_of(new if given else old)
    change = difference(node, _bare(old), _bare(new))
    taken = _owned(change.added | change.modified)
    own_key = (manager.name, manager.operation, manager.subresource)
    result = _without(claims, taken | change.removed, keep=own_key)
    own = claims.get(own_key)
    mine = ((own.paths if own else frozenset()) - change.removed) | taken
    if own is None or own.paths != mine:
        result[own_key] = Claim(manager, kind.api_version, frozenset(mine))
    return result


def applied(
    kind: Kind, node: Node, live: Object, config: Object, manager: Manager, *, force: bool
) -> tuple[Object, Claims]:
    """`live` after `manager` has applied `config`, and the claims. Refusal (409) on conflicts."""
    claims = claims_of(live)
    key = (manager.name, manager.operation, manager.subresource)
    before = claims.get(key)
    own = Claim(manager, kind.api_version, frozenset(_owned(said(node, _bare(config)))))
    others = {other: claim for other, claim in claims.items() if other != key}
    merged = merge(node, _bare(live), _bare(config))
    if before is not None:
        kept = set(own.paths).union(*(claim.paths for claim in others.values()))
        merged = pruned(node, merged, set(before.paths), kept)
    change = difference(node, _bare(live), merged)
    contested = change.added | change.modified
    if not force:
        upgraded = _client_side(node, live) if manager.name == "kubectl" else set()
        _refuse_conflicts(others.values(), contested - upgraded)
    result = _without(others, contested | change.removed)
    result[key] = before if before is not None and before.paths == own.paths else own
    return merged, result


def _client_side(node: Node, live: Object) -> Paths:
    """Fields as `kubectl apply` left them: its --server-side may take them over."""
    text = live.get("metadata", {}).get("annotations", {}).get(_LAST_APPLIED)
    try:
        last = json.loads(text or "{}")
        left = difference(node, _bare(live), merge(node, _bare(live), last))
        return said(node, last) - left.added - left.modified
    except (ValueError, TypeError, AttributeError, KeyError):
        return set()  # users may write into annotations what they like


def _refuse_conflicts(others: Iterable[Claim], contested: Paths) -> None:
    clashes = [
        (claim, path)
        for claim in sorted(others, key=lambda claim: claim.key)
        for path in sorted(claim.paths & contested, key=dotted)
    ]
    if not clashes:
        return
    by_claim: dict[str, list[str]] = {}
    causes = []
    for claim, path in clashes:
        who = _who(claim)
        by_claim.setdefault(who, []).append(dotted(path))
        message = f"conflict with {who}"
        causes.append({"reason": "FieldManagerConflict", "message": message, "field": dotted(path)})
    many = len(clashes) > 1
    told = [
        f"conflict with {who}: {fields[0]}"
        if not many
        else "\n- ".join([f"conflicts with {who}:", *fields])
        for who, fields in by_claim.items()
    ]
    count = f"{len(clashes)} conflict{'s' if many else ''}"
    message = f"Apply failed with {count}: " + "\n".join(told)
    raise Refusal(409, "Conflict", message, {"causes": causes})


def _who(claim: Claim) -> str:
    manager = claim.manager
    of = f' with subresource "{manager.subresource}"' if manager.subresource else ""
    using = f" using {claim.api_version}" if manager.operation == "Update" else ""
    return f'"{manager.name}"{of}{using}'


def _without(
    claims: Claims, paths: Paths, keep: tuple[str, str, str] | None = None
) -> dict[tuple[str, str, str], Claim]:
    return {
        key: claim if key == keep else replace(claim, paths=claim.paths - paths)
        for key, claim in claims.items()
    }


def _bare(obj: Object) -> Object:
    """`obj` without managedFields, which nobody owns."""
    if "managedFields" not in obj.get("metadata", {}):
        return obj
    meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": meta}


def _owned(paths: Paths) -> Paths:
    return {path for path in paths if path not in _NOBODYS and path}


def merge(node: Node, live: Any, config: Any) -> Any:
    """`live` with all that `config` says."""
    if not (is_granular(node, live) and is_granular(node, config)):
        return config
    if isinstance(config, dict) and isinstance(live, dict):
        return {
            **live,
            **{
                key: merge(node.child(key), live[key], value) if key in live else value
                for key, value in config.items()
            },
        }
    if isinstance(config, list) and isinstance(live, list):
        return _merge_lists(node, live, config)
    return config


def _merge_lists(node: Node, live: list[Any], config: list[Any]) -> list[Any]:
    """Items of both in the order of `config`; what only `live` has stays where it was."""
    there = {element(node, item): item for item in live}
    wanted = {element(node, item): item for item in config}
    result = []
    waiting = [name for name in there if name not in wanted]
    places = list(there)
    for name, item in wanted.items():
        before = places.index(name) if name in there else len(places)
        while waiting and places.index(waiting[0]) < before:
            result.append(there[waiting.pop(0)])
        result.append(merge(node.item(), there[name], item) if name in there else item)
    return result + [there[name] for name in waiting]


def pruned(node: Node, value: Any, before: Paths, kept: Paths) -> Any:
    """`value` without what was said `before` and is not `kept` by anyone."""
    around = {path[:depth] for path in kept for depth in range(1, len(path) + 1)}
    gone = named_ancestors(node, before) - around - _NOBODYS
    return _take_out(node, value, gone, ())


def _take_out(node: Node, value: Any, gone: Paths, path: tuple[str, ...]) -> Any:
    if not is_granular(node, value):
        return value
    if isinstance(value, dict):
        return {
            key: _take_out(node.child(key), child, gone, (*path, f"f:{key}"))
            for key, child in value.items()
            if (*path, f"f:{key}") not in gone
        }
    return [
        _take_out(node.item(), item, gone, where)
        for item in value
        if (where := (*path, element(node, item))) not in gone
    ]
