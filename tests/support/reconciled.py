"""A cluster in memory, the operator's cache, and a decision that a test gives."""

from stageline_operator.cache import Cache, Key
from stageline_operator.decision import Decision
from stageline_operator.difference import is_as_wished, stamped
from stageline_operator.kinds import PIPELINE_DEPLOYMENT, SERVICE, kind_of
from stageline_operator.labels import OWNER
from stageline_operator.reconcile import Reconciler
from stageline_operator.settings import RenderSettings
from support.memory_cluster import MemoryCluster

KEY = Key("default", "llama")


class World:
    """A cluster with one resource, the operator's cache, and a decision that a test gives."""

    def __init__(self, decide=lambda observed: Decision(), rate=0.0):
        self.cluster, self.cache, self.decide, self.observed = MemoryCluster(), Cache(), decide, []
        self.reconciler = Reconciler(
            self.cluster, self.cache, self._decide, RenderSettings(), rate=lambda: rate
        )
        self.resource = self.cluster.put(
            {"apiVersion": PIPELINE_DEPLOYMENT.api_version, "kind": PIPELINE_DEPLOYMENT.kind,
             "metadata": {"name": "llama", "generation": 1}, "spec": {}}
        )  # fmt: skip
        self.cache.heard("ADDED", self.resource)

    def _decide(self, observed, settings, now):
        assert isinstance(settings, RenderSettings)
        assert now.tzinfo is not None
        self.observed.append(observed)
        return self.decide(observed)

    async def reconcile(self):
        return await self.reconciler.reconcile(KEY)

    def child(self, kind=SERVICE, name="llama", **extra):
        uid = self.resource["metadata"]["uid"]
        controller = {"apiVersion": PIPELINE_DEPLOYMENT.api_version, "name": "llama", "uid": uid,
                      "kind": PIPELINE_DEPLOYMENT.kind, "controller": True}  # fmt: skip
        metadata = {"name": name, "namespace": "default", "labels": {OWNER: "llama"},
                    "ownerReferences": [controller]}  # fmt: skip
        return stamped(
            {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **extra}
        )

    def put_child(self, **how):
        """There already, and seen."""
        obj = self.cluster.put(self.child(**how))
        self.cache.heard("ADDED", obj)
        return obj

    def wishing(self, *wished, **more):
        """A decision as the real one is made: apply what is not as wished and can be."""

        def decide(observed):
            possible = [
                obj for obj in wished if _place(obj) not in {**observed.taken, **observed.refused}
            ]
            unlike = [
                obj
                for obj in possible
                if not is_as_wished(observed.of(kind_of(obj)).get(obj["metadata"]["name"]), obj)
            ]
            return Decision(apply=tuple(unlike), **more)

        self.decide = decide


def _place(obj):
    return kind_of(obj), obj["metadata"]["name"]
