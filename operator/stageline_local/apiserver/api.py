"""The verbs of the API on the store, without HTTP: get, list, create, update, patch, delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from stageline_local.apiserver import (
    admission,
    cel,
    decoding,
    defaults,
    events,
    names,
    ownership,
    patches,
    rules,
    validation,
    writes,
)
from stageline_local.apiserver.errors import (
    Problem,
    already_exists,
    bad_request,
    forbidden,
    invalid,
    not_found,
    unsupported_patch,
)
from stageline_local.apiserver.identity import check_target, check_version
from stageline_local.apiserver.kinds import BUILT_IN, Kind, Object
from stageline_local.apiserver.ownership import Manager
from stageline_local.apiserver.registry import Registry, Served
from stageline_local.apiserver.store import Key, Store
from stageline_local.apiserver.writes import DeleteOptions, Write

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"

NAMESPACES: Final = next(kind for kind in BUILT_IN if kind.plural == "namespaces")
_SYSTEM_NAMESPACES: Final = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True, slots=True)
class Options:
    """What a client asks for beside the object."""

    manager: str = "unknown"
    """Who writes: `fieldManager`, or the client's name."""
    applier: str = ""
    """`fieldManager` alone: whoever applies must say it."""
    force: bool = False
    dry_run: bool = False
    validation: str = "Warn"
    """Strict, Warn or Ignore: what becomes of unknown fields."""
    warnings: list[str] = field(default_factory=list)
    """The server puts in what the client should be told."""


class Target(NamedTuple):
    """What a request is about."""

    served: Served
    key: Key
    subresource: str = ""

    @property
    def kind(self) -> Kind:
        """Its kind."""
        return self.served.kind


class Api:
    """A cluster's state, and the rules by which it changes. All methods are quick and atomic."""

    def __init__(self, crds: Sequence[Object] = ()) -> None:
        self.store = Store()
        self.registry = Registry()
        self._addresses = 0
        everything = Options("kube-apiserver")
        for name in _SYSTEM_NAMESPACES:
            self.create(self.target(NAMESPACES, "", name), {"metadata": {"name": name}}, everything)
        crd_kind = next(kind for kind in BUILT_IN if kind.kind == "CustomResourceDefinition")
        for crd in crds:
            self.create(self.target(crd_kind, "", crd["metadata"]["name"]), crd, everything)

    def target(self, kind: Kind, namespace: str, name: str) -> Target:
        """An object's place, for callers that know its kind."""
        served = self.registry.find(kind.group, kind.version, kind.plural)
        if served is None:
            raise KeyError(f"{kind.resource} of version {kind.version} is not served")
        return Target(served, (namespace if kind.namespaced else "", name))

    def get(self, target: Target) -> Object:
        """One object. Refusal (404) if there is none."""
        found = self.store.get(target.kind, target.key)
        if found is None:
            raise not_found(target.kind, target.key[1])
        return found

    def create(self, target: Target, body: Object, options: Options) -> Object:
        """Make an object; its name may come from metadata.generateName."""
        kind, namespace = target.kind, target.key[0]
        obj = writes.named(self._decoded(target, body, options))
        self._check_namespace(kind, namespace)
        key = (namespace, obj["metadata"].get("name", ""))
        write = self._write(target, options, "Update")
        first = self._complete(target, writes.created(write, obj, namespace))
        first = self._admitted(kind, writes.claimed(write, None, first), None)
        return self._commit(target._replace(key=key), None, first, options)

    def update(self, target: Target, body: Object, options: Options) -> Object:
        """Replace an object, or the part of it that the subresource is."""
        obj, kind = self._decoded(target, body, options), target.kind
        old = self.get(target)
        if kind.custom and not obj["metadata"].get("resourceVersion"):
            problem = Problem(
                "metadata.resourceVersion", "Invalid value: 0: must be specified for an update"
            )
            raise invalid(replace(kind, kind=kind.plural), target.key[1], [problem])
        return self._change(target, old, obj, options)

    def patch(self, target: Target, content_type: str, body: bytes, options: Options) -> Object:
        """Change an object by one of the four kinds of patch; apply makes it if need be."""
        if content_type not in _accepted(target.kind):
            raise unsupported_patch(_accepted(target.kind))
        if content_type == APPLY_PATCH:
            return self._apply(target, decoding.parsed(body, yaml_too=True), options)
        old = self.get(target)
        new = self.patched(target, content_type, body, events.served(target.kind, old))
        return self._change(target, old, self._decoded(target, new, options), options)

    def patched(self, target: Target, content_type: str, body: bytes, old: Object) -> Object:
        """`old` after a patch that is not an apply."""
        patch = decoding.parsed(body)
        if content_type == JSON_PATCH:
            new = patches.json_patch(old, patch)
        elif content_type == STRATEGIC_PATCH:
            new = patches.strategic_merge_patch(target.served.node, old, patch)
        else:
            new = patches.merge_patch(old, patch)
        if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
            raise bad_request("the patch leaves no object: give an object with metadata")
        return new

    def delete(
        self, target: Target, options: DeleteOptions, dry_run: bool = False
    ) -> writes.Deletion:
        """Delete an object, or begin to, where others have work to do first."""
        kind, obj = target.kind, self.get(target)
        if kind.plural == "namespaces" and target.key[1] in _SYSTEM_NAMESPACES:
            raise forbidden(kind, target.key[1], "this namespace may not be deleted")
        deletion = writes.deleted(kind, obj, options, datetime.now(UTC))
        if deletion.object["metadata"].get("deletionTimestamp") and kind.plural == "namespaces":
            ending = {**deletion.object, "status": {"phase": "Terminating"}}
            deletion = writes.Deletion(ending, deletion.gone)
        if dry_run:
            return deletion
        if deletion.gone:
            return writes.Deletion(self._remove(target, deletion.object), gone=True)
        if deletion.object == obj:
            return deletion
        return writes.Deletion(self.store.put(kind, target.key, deletion.object), gone=False)

    def _apply(self, target: Target, config: Any, options: Options) -> Object:
        kind, node, name = target.kind, target.served.node, target.key[1]
        if not options.applier:
            problem = Problem(
                "fieldManager",
                "Required value: is required for apply patch",
                "FieldValueRequired",
            )
            options_kind = Kind("meta.k8s.io", "v1", "", "PatchOptions")
            raise invalid(options_kind, "", [problem])
        if not isinstance(config, dict):
            raise bad_request("the body of an apply must be an object")
        check_target(kind, target.key, config)
        old = self.store.get(kind, target.key)
        if old is None and target.subresource:
            raise not_found(kind, name)
        decoding.check_applied(kind, node, config, name)
        check_version(kind, old, config)
        said = self._applicable(target, events.stored(kind, config))
        write = self._write(target, options, "Apply")
        live = old if old is not None else {"metadata": {"name": name}}
        merged, claims = ownership.applied(
            kind, node, live, said, write.manager, force=options.force
        )
        merged = {**merged, "metadata": {**merged.get("metadata", {}), "name": name}}
        if old is None:
            self._check_namespace(kind, target.key[0])
            new = writes.created(write, merged, target.key[0])
        else:
            new = writes.updated(write, old, merged)
        if not kind.custom:
            new = decoding.decoded(kind, node, new)
        complete = ownership.with_claims(self._complete(target, new, old), claims)
        return self._commit(target, old, self._admitted(kind, complete, old), options)

    def _change(self, target: Target, old: Object, body: Object, options: Options) -> Object:
        write = self._write(target, options, "Update")
        new = self._complete(target, writes.updated(write, old, body), old)
        complete = self._admitted(target.kind, writes.claimed(write, old, new), old)
        return self._commit(target, old, complete, options)

    def _commit(self, target: Target, old: Object | None, new: Object, options: Options) -> Object:
        """Check the next state of an object, and store it unless nothing changes."""
        kind = target.kind
        name = new["metadata"].get("name", "")
        if found := self._problems(target, old, new):
            raise invalid(kind, name, found)
        if old is None and self.store.get(kind, target.key) is not None:
            raise already_exists(kind, name)
        if old is not None:
            if writes.is_same(old, new):
                return old
            new = writes.counted(kind, old, new)
        if options.dry_run:
            return new
        if writes.ripe(kind, new):
            return self._remove(target, new)
        stored = self.store.put(kind, target.key, new)
        if kind.kind == "CustomResourceDefinition":
            self.registry.declare(stored)
        return stored

    def _problems(self, target: Target, old: Object | None, new: Object) -> list[Problem]:
        kind, node = target.kind, target.served.node
        found = names.problems(kind, new["metadata"])
        if not kind.custom:
            return found + rules.problems(kind, node, new, old)
        found += validation.problems(node, new, old, status=target.subresource == "status")
        if validation.stops_rules(found):
            return [*found, validation.UNASKED]
        return found + list(cel.problems(node, new, old))

    def _remove(self, target: Target, last: Object) -> Object:
        gone = self.store.remove(target.kind, target.key, last)
        if target.kind.kind == "CustomResourceDefinition":
            for kind in self.registry.withdraw(gone):
                for obj in self.store.all(kind):
                    meta = obj["metadata"]
                    self.store.remove(kind, (meta.get("namespace", ""), meta["name"]), obj)
        return gone

    def _complete(self, target: Target, obj: Object, old: Object | None = None) -> Object:
        """`obj` with its defaults, and a first status if it is new."""
        kind = target.kind
        if kind.custom:
            return dict(validation.defaulted(target.served.node, obj))
        result = defaults.defaulted(kind, obj)
        if old is None and (status := defaults.first_status(kind, result)) is not None:
            result = {**result, "status": status}
        return result

    def _admitted(self, kind: Kind, obj: Object, old: Object | None) -> Object:
        return obj if kind.custom else admission.admitted(kind, obj, old, self._cluster_ip)

    def _decoded(self, target: Target, body: Any, options: Options) -> Object:
        """What a client sent, as an object of the kind. Refusal (400) if it is not one."""
        kind, node = target.kind, target.served.node
        if not isinstance(body, dict):
            raise bad_request("the body must be an object")
        check_target(kind, target.key, body)
        unknown = decoding.unknown_fields(node, body)
        if unknown and options.validation == "Strict":
            told = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise bad_request(
                f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                f"strict decoding error: {told}"
            )
        if options.validation != "Ignore":
            options.warnings.extend(f'unknown field "{path}"' for path in unknown)
        known = decoding.pruned(node, body) if unknown else body
        if kind.custom:  # of which only metadata has a Go type
            meta = node.properties["metadata"]
            decoded = decoding.decoded(kind, meta, known.get("metadata") or {})
            return {**known, "metadata": decoded}
        return {"metadata": {}, **events.stored(kind, decoding.decoded(kind, node, known))}

    def _check_namespace(self, kind: Kind, namespace: str) -> None:
        if not kind.namespaced:
            return
        found = self.store.get(NAMESPACES, ("", namespace))
        if found is None:
            raise not_found(NAMESPACES, namespace)
        if "deletionTimestamp" in found["metadata"]:
            why = (
                "unable to create new content in namespace "
                f"{namespace} because it is being terminated"
            )
            raise forbidden(kind, "", why)

    def _applicable(self, target: Target, config: Object) -> Object:
        """`config` without the parts that this way in does not write."""
        if target.subresource == "status":
            return {key: value for key, value in config.items() if key in ("metadata", "status")}
        if target.kind.has_status:
            return {key: value for key, value in config.items() if key != "status"}
        return config

    def _write(self, target: Target, options: Options, operation: str) -> Write:
        now = datetime.now(UTC)
        name = options.applier if operation == "Apply" else options.manager
        manager = Manager(name, operation, target.subresource, writes.timestamp(now))
        track = target.kind.plural != "events"
        return Write(target.kind, target.served.node, manager, now, target.subresource, track)

    def _cluster_ip(self) -> str:
        self._addresses += 1
        return f"10.96.{self._addresses // 250}.{self._addresses % 250 + 1}"


def _accepted(kind: Kind) -> list[str]:
    strategic = [] if kind.custom else [STRATEGIC_PATCH]
    return [JSON_PATCH, MERGE_PATCH, *strategic, APPLY_PATCH]
