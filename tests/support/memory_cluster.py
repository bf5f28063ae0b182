"""A Cluster in memory, with the preconditions of the real one, and a fault for every call."""

import copy
import itertools
import uuid

from stageline_operator.cache import Listing
from stageline_operator.cluster import AlreadyExists, Conflict, Gone
from stageline_operator.kinds import PIPELINE_DEPLOYMENT, kind_of


class MemoryCluster:
    """Objects by (kind, namespace, name). `calls` tells what was asked, in order."""

    def __init__(self):
        self.objects = {}
        self.events = []
        self.calls = []
        self.fault = lambda verb, subject: None
        self._versions = itertools.count(1)

    def put(self, obj, **status):
        """As somebody else writes it: a new object, or a new version of one."""
        place = _place(obj)
        old = self.objects.get(place)
        metadata = {
            "namespace": "default",
            "uid": (old or {"metadata": {"uid": uuid.uuid4().hex}})["metadata"]["uid"],
            **obj["metadata"],
            "resourceVersion": str(next(self._versions)),
        }
        self.objects[place] = {**copy.deepcopy(obj), "metadata": metadata, **status}
        return copy.deepcopy(self.objects[place])

    def remove(self, kind, name, namespace="default"):
        """As somebody else deletes it; what the watch would say of it."""
        obj = self.objects.pop((kind, namespace, name))
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        return obj

    def of(self, kind):
        """Names of the objects of a kind."""
        return sorted(name for known, _, name in self.objects if known == kind)

    def verbs(self):
        """How often each verb was called."""
        counts = {}
        for verb, _ in self.calls:
            counts[verb] = counts.get(verb, 0) + 1
        return counts

    async def list(self, kind, namespace, selector="", *, fields=""):
        self._called("list", kind.plural)
        items = [obj for place, obj in self.objects.items() if place[0] == kind]
        if selector:
            items = [obj for obj in items if selector in obj["metadata"].get("labels", {})]
        return Listing(copy.deepcopy(items), next(self._versions))

    async def get(self, kind, namespace, name):
        self._called("get", name)
        return copy.deepcopy(self._found(kind, namespace, name))

    async def create(self, obj):
        self._called("create", obj["metadata"]["name"])
        return self._new(obj)

    async def restore(self, obj, live):
        self._called("restore", obj["metadata"]["name"])
        found = self.objects.get(_place(obj))
        if found is None or found["metadata"]["uid"] != live["metadata"]["uid"]:
            raise Conflict("uid mismatch")
        return self.put(merged(found, obj))

    async def patch(self, kind, namespace, name, body):
        self._called("patch", name)
        return self.put(merged(self._found(kind, namespace, name), body))

    async def delete(self, kind, namespace, name, uid, grace=None):
        self._called("delete" if grace is None else "kill", name)
        live = self._found(kind, namespace, name)
        if live["metadata"]["uid"] != uid:
            raise Conflict("uid mismatch")
        if kind.kind == "Pod" and grace is None:
            return self.put(
                merged(live, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
            )
        del self.objects[kind, namespace, name]
        return None

    async def apply_status(self, resource, status):
        metadata = resource["metadata"]
        self._called("status", metadata["name"])
        live = self._found(PIPELINE_DEPLOYMENT, metadata["namespace"], metadata["name"])
        if live["metadata"]["uid"] != metadata["uid"]:
            raise Conflict("uid mismatch")
        return self.put({**live, "status": status})

    async def post_event(self, event):
        self._called("event", event["reason"])
        self.events.append(event)

    def _called(self, verb, subject):
        self.calls.append((verb, subject))
        if (error := self.fault(verb, subject)) is not None:
            raise error

    def _new(self, obj):
        if _place(obj) in self.objects:
            raise AlreadyExists(f"{obj['metadata']['name']} already exists")
        return self.put(obj)

    def _found(self, kind, namespace, name):
        try:
            return self.objects[kind, namespace, name]
        except KeyError:
            raise Gone(f'{kind.plural} "{name}" not found') from None


def merged(old, new):
    """RFC 7386."""
    if not isinstance(new, dict):
        return new
    base = old if isinstance(old, dict) else {}
    kept = {key: value for key, value in base.items() if key not in new}
    return kept | {
        key: merged(base.get(key), value) for key, value in new.items() if value is not None
    }


def _place(obj):
    return kind_of(obj), obj["metadata"].get("namespace", "default"), obj["metadata"]["name"]
