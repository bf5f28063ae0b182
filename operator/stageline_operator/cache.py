"""What the operator has seen, by resource: fed by watches and by the answers to its own writes.

Events come late, and an answer is often newer than the next event, so the newest resourceVersion
wins. What a watch still owes (we know of a newer object than it has told of) is remembered: a watch
that owes for long is dead, however open its connection looks.

Children are kept as JSON, in a third of the room, and those of resources at work as objects too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pydantic_core import from_json, to_json

from stageline_operator.kinds import CHILDREN, NODE, PIPELINE_DEPLOYMENT, POD, Kind, Object, kind_of
from stageline_operator.labels import COMPONENT, FIELD_MANAGER, OWNER, ROUTER_COMPONENT
from stageline_operator.observed import Observed
from stageline_operator.ownership import is_posted

_REMEMBERED_ENDS: Final = 256
_OPEN: Final = 64
"""Resources whose children are held as objects too: those that were looked at last."""
_KEPT_OF_POD_SPEC: Final = ("nodeName", "restartPolicy")
"""The rest cannot change, and nothing asks for it: it is two thirds of a pod."""
_DROPPED_OF_METADATA: Final = ("managedFields", "generateName", "selfLink")
_POSTED: Final = {"managedFields": [{"manager": FIELD_MANAGER, "operation": "Update"}]}
"""All that is kept of them: what was made by POST has to be taken over before it is applied."""
_DROPPED_OF_POD_STATUS: Final = ("podIPs", "hostIP", "hostIPs", "qosClass", "startTime")
_DROPPED_OF_ITS_PARTS: Final = {
    "conditions": ("lastProbeTime", "lastTransitionTime", "observedGeneration"),
    **dict.fromkeys(
        ("containerStatuses", "initContainerStatuses"),
        ("imageID", "containerID", "volumeMounts", "resources", "allocatedResources", "user"),
    ),
}


class Key(NamedTuple):
    """A PipelineDeployment, whether it exists or not."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Child = tuple[Kind, str]
"""Kind and name of a child."""


class _Kept(NamedTuple):
    """A child, as it is kept."""

    version: int
    packed: bytes
    """Its JSON."""


@dataclass(slots=True)
class _Entry:
    resource: Object | None = None
    children: dict[Child, _Kept] = field(default_factory=dict)
    """Everything labelled as this resource's, whoever controls it."""
    ended: dict[Child, int] = field(default_factory=dict)
    """resourceVersion at which it was deleted: an answer that is older came late."""

    @property
    def empty(self) -> bool:
        return self.resource is None and not self.children

    def version(self, child: Child) -> int | None:
        """The newest known of a child, or of the resource itself; None where there is none."""
        if child[0] == PIPELINE_DEPLOYMENT:
            return version_of(self.resource) if self.resource is not None else None
        kept = self.children.get(child)
        return kept.version if kept is not None else None


@dataclass(frozen=True, slots=True)
class Debt:
    """News of a kind that its watch has not told yet."""

    since: float
    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind, and the version at which that was so."""

    items: Sequence[Object]
    version: int


class Cache:
    """The newest known of every resource and of what is labelled as its child."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._open: dict[Key, dict[Child, Object]] = {}
        """The one that was looked at last is the last."""
        self._debts: dict[tuple[Kind, str], Debt] = {}

    def heard(self, event: str | None, obj: Object) -> Key | None:
        """Take in a watch event (DELETED, or anything else); the key for which it is news.

        Most events tell of our own writes, of which the answers have told already.
        """
        key = key_of(obj)
        if key is None:
            return None
        self._pay(obj)
        if event != "DELETED":
            return key if self._put(key, obj) else None
        self._remove(key, obj)
        return key

    def answered(self, key: Key, obj: Object, now: float) -> None:
        """Take in the answer to a read or a write of our own, newer perhaps than any event.

        The key is given, since what lost its labels is still somebody's child.
        """
        if self._put(key, obj) and _is_watched(obj):
            self._owe(obj, now)

    def found_gone(self, key: Key, kind: Kind, name: str) -> None:
        """The API server says that there is no such object."""
        entry = self._entries.get(key)
        if entry is None:
            return
        if kind == PIPELINE_DEPLOYMENT:
            entry.resource = None
        else:
            entry.children.pop((kind, name), None)
            self._open.get(key, {}).pop((kind, name), None)
        self._tidy(key, entry)

    def listed(self, kind: Kind, namespace: str | None, listing: Listing, now: float) -> set[Key]:
        """Take in everything of a kind that there is; the keys for which that was news."""
        news, present = set(), set()
        for obj in listing.items:
            key = key_of(obj)
            if key is None:
                continue
            present.add((key, obj["metadata"]["name"]))
            if self._put(key, obj):
                self._owe(obj, now)
                news.add(key)
        self._remit(kind, namespace, present)
        return news | self._forget_absent(kind, namespace, present, listing.version)

    def resource(self, key: Key) -> Object | None:
        """The PipelineDeployment itself; None when there is none."""
        entry = self._entries.get(key)
        return entry.resource if entry else None

    def observed(
        self,
        key: Key,
        taken: Mapping[Child, str] | None = None,
        refused: Mapping[Child, str] | None = None,
    ) -> Observed | None:
        """What is known of a resource; None when there is none."""
        entry = self._entries.get(key)
        if entry is None or entry.resource is None:
            return None
        uid = entry.resource["metadata"]["uid"]
        children: dict[Kind, dict[str, Object]] = {}
        router_pods: dict[str, Object] = {}
        for (kind, name), obj in self._opened(key, entry).items():
            controller = controller_of(obj)
            if controller is not None and controller["uid"] == uid:
                children.setdefault(kind, {})[name] = obj
            elif _is_router_pod(kind, obj):
                router_pods[name] = obj
        return Observed(
            resource=entry.resource,
            children=children,
            router_pods=router_pods,
            taken=taken or {},
            refused=refused or {},
        )

    def child(self, key: Key, kind: Kind, name: str) -> Object | None:
        """What a resource has of this kind and name, whoever controls it."""
        entry = self._entries.get(key)
        return self._opened(key, entry).get((kind, name)) if entry else None

    def forget(self, key: Key, kind: Kind) -> None:
        """All children of a kind of which nobody tells when they end."""
        for name in _of_kind(self._entries.get(key, _Entry()), kind):
            self.found_gone(key, kind, name)

    def existing(self) -> list[Key]:
        """Every resource that exists."""
        return [key for key, entry in self._entries.items() if entry.resource is not None]

    def oldest_debt(self, now: float) -> tuple[Kind, float] | None:
        """The kind whose watch has owed us news the longest, and for how many seconds."""
        if not self._debts:
            return None
        (kind, _), debt = min(self._debts.items(), key=lambda item: item[1].since)
        return kind, now - debt.since

    def _opened(self, key: Key, entry: _Entry) -> Mapping[Child, Object]:
        """The children of a resource as objects."""
        children = self._open.pop(key, None)
        if children is None:
            children = {child: from_json(kept.packed) for child, kept in entry.children.items()}
            if len(self._open) >= _OPEN:
                del self._open[next(iter(self._open))]
        self._open[key] = children
        return children

    def _put(self, key: Key, obj: Object) -> bool:
        """Whether it was news."""
        entry = self._entries.setdefault(key, _Entry())
        child, version = (kind_of(obj), obj["metadata"]["name"]), version_of(obj)
        known, ended = entry.version(child), entry.ended.get(child, 0)
        # A delete without grace is answered with the very version that its event has.
        late = version < ended or (version == ended and "deletionTimestamp" in obj["metadata"])
        if late or (known is not None and version <= known):
            self._tidy(key, entry)
            return False
        kept = slim(obj)
        if child[0] == PIPELINE_DEPLOYMENT:
            entry.resource = kept
        else:
            entry.children[child] = _Kept(version, to_json(kept))
            if key in self._open:
                self._open[key][child] = kept
        return True

    def _remove(self, key: Key, obj: Object) -> None:
        entry = self._entries.setdefault(key, _Entry())
        child, version = (kind_of(obj), obj["metadata"]["name"]), version_of(obj)
        known = entry.version(child)
        if known is None or known <= version:
            self.found_gone(key, *child)
        entry.ended[child] = max(version, entry.ended.get(child, 0))
        while len(entry.ended) > _REMEMBERED_ENDS:
            del entry.ended[next(iter(entry.ended))]
        self._tidy(key, entry)

    def _forget_absent(
        self, kind: Kind, namespace: str | None, present: set[tuple[Key, str]], version: int
    ) -> set[Key]:
        absent = [
            (key, name)
            for key, entry in self._entries.items()
            if namespace in (None, key.namespace)
            for name in _of_kind(entry, kind)
            if (key, name) not in present and (entry.version((kind, name)) or 0) <= version
        ]
        for key, name in absent:
            self.found_gone(key, kind, name)
        return {key for key, _ in absent}

    def _tidy(self, key: Key, entry: _Entry) -> None:
        if entry.empty:
            self._entries.pop(key, None)
            self._open.pop(key, None)

    def _owe(self, obj: Object, now: float) -> None:
        """One debt at a time: a watch that is merely behind pays it, a dead one does not."""
        account = (kind_of(obj), obj["metadata"]["namespace"])
        self._debts.setdefault(account, Debt(now, obj["metadata"]["name"], version_of(obj)))

    def _pay(self, obj: Object) -> None:
        account = (kind_of(obj), obj["metadata"]["namespace"])
        debt = self._debts.get(account)
        if debt is not None and version_of(obj) >= debt.version:
            del self._debts[account]

    def _remit(self, kind: Kind, namespace: str | None, present: set[tuple[Key, str]]) -> None:
        """Nobody will tell of what is not there any more, if its end was not told."""
        names = {(key.namespace, name) for key, name in present}
        for (indebted, where), debt in list(self._debts.items()):
            mine = indebted == kind and namespace in (None, where)
            if mine and (where, debt.name) not in names:
                del self._debts[indebted, where]


def _of_kind(entry: _Entry, kind: Kind) -> list[str]:
    """Their names."""
    if kind != PIPELINE_DEPLOYMENT:
        return [name for known, name in entry.children if known == kind]
    return [entry.resource["metadata"]["name"]] if entry.resource else []


def key_of(obj: Object) -> Key | None:
    """The resource that an object is, is controlled by, or is labelled as belonging to.

    The controller goes before the label: whoever changes a child's label does not move it.
    """
    metadata = obj["metadata"]
    if kind_of(obj) == PIPELINE_DEPLOYMENT:
        return Key(metadata["namespace"], metadata["name"])
    controller = controller_of(obj)
    if controller is not None and controller["kind"] == PIPELINE_DEPLOYMENT.kind:
        return Key(metadata["namespace"], controller["name"])
    owner = (metadata.get("labels") or {}).get(OWNER)
    return Key(metadata["namespace"], owner) if owner else None


def _is_watched(obj: Object) -> bool:
    kind, labels = kind_of(obj), obj["metadata"].get("labels") or {}
    return kind == PIPELINE_DEPLOYMENT or (kind in CHILDREN and OWNER in labels)


def slim(obj: Object) -> Object:
    """Without what is of no use to a decision: most of managedFields, of a pod, and of a node."""
    made = {**obj, "metadata": _without(obj["metadata"], _DROPPED_OF_METADATA)}
    kind = kind_of(obj)
    if kind == POD:
        spec = obj.get("spec", {})
        made["spec"] = {key: spec[key] for key in _KEPT_OF_POD_SPEC if key in spec}
        if status := obj.get("status"):
            made["status"] = _slim_status(status)
    elif kind == NODE:
        made["status"] = {"allocatable": (obj.get("status") or {}).get("allocatable")}
    elif is_posted(obj):
        made["metadata"] |= _POSTED
    return made


def _slim_status(status: Object) -> Object:
    kept = _without(status, _DROPPED_OF_POD_STATUS)
    for name, dropped in _DROPPED_OF_ITS_PARTS.items():
        if parts := kept.get(name):
            kept[name] = [_without(part, dropped) for part in parts]
    return kept


def _without(whole: Object, dropped: Sequence[str]) -> Object:
    return {key: value for key, value in whole.items() if key not in dropped}


def version_of(obj: Object) -> int:
    """resourceVersion as the number that it has been since Kubernetes 1.35, and always was."""
    return int(obj["metadata"]["resourceVersion"])


def controller_of(obj: Object) -> Object | None:
    """The owner reference of its controller."""
    references = obj["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def _is_router_pod(kind: Kind, obj: Object) -> bool:
    """Its labels come from the pod template of the router's Deployment."""
    labels = obj["metadata"].get("labels") or {}
    return kind == POD and labels.get(COMPONENT) == ROUTER_COMPONENT


def whose(obj: Object) -> str:
    """Whose object it is, to be read after "belongs to"."""
    controller = controller_of(obj)
    return f"{controller['kind']} {controller['name']}" if controller else "nobody we know"


WATCHED: Final = (PIPELINE_DEPLOYMENT, *CHILDREN)
"""Every kind that must have been listed before a decision is true."""
