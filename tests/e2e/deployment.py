"""The PipelineDeployment under test: its pods, what its status says, what is left of it."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from e2e.cluster import Object, condition_of, get, items, kubectl, until

READY_SECONDS = 240.0
KINDS = (
    "pods,services,endpointslices,configmaps,secrets,serviceaccounts,deployments,replicasets,"
    "controllerrevisions,poddisruptionbudgets,networkpolicies"
)


class Key(NamedTuple):
    """Which stage of which pipeline."""

    pipeline: str
    stage: int


class Life(NamedTuple):
    """What of a pod changes when it is another one, or its process is."""

    uid: str
    restarts: int


class Deployment:
    """One PipelineDeployment of a namespace."""

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self._where = ("--namespace", namespace)

    def get(self) -> Object:
        """The object."""
        return get("pld", self.name, *self._where)

    def kubectl(self, *arguments: str, fed: str | None = None) -> str:
        """kubectl in its namespace."""
        return kubectl(*arguments, *self._where, fed=fed)

    def patch(self, **spec: object) -> None:
        """Merge into its spec."""
        body = json.dumps({"spec": spec})
        self.kubectl("patch", "pld", self.name, "--type=merge", f"--patch={body}")

    def pods(self) -> dict[Key, Object]:
        """The pods of its stages that are not on their way out."""
        found = {}
        for pod in self.all_pods("stage"):
            labels = pod["metadata"]["labels"]
            pipeline = f"{labels['stageline.dev/revision']}-{labels['stageline.dev/pipeline']}"
            if not pod["metadata"].get("deletionTimestamp"):
                found[Key(pipeline, int(labels["stageline.dev/stage"]))] = pod
        return dict(sorted(found.items()))

    def all_pods(self, component: str) -> list[Object]:
        """Its pods of one component, `stage` or `router`."""
        labels = f"stageline.dev/deployment={self.name},app.kubernetes.io/component={component}"
        return items("pods", *self._where, "--selector", labels)

    def lives(self) -> dict[Key, Life]:
        """What a pod that is left alone keeps."""
        return {key: life_of(pod) for key, pod in self.pods().items()}

    def loads(self) -> dict[Key, int]:
        """How often the process of each stage has loaded weights."""
        return {key: stage["loads"] for key, stage in self.stages().items()}

    def stages(self) -> dict[Key, Object]:
        """What status says of each stage."""
        told = self.get().get("status", {}).get("stages", ())
        start = f"{self.name}-"
        return {Key(one["pipeline"].removeprefix(start), one["stage"]): one for one in told}

    def condition(self, kind: str) -> Object:
        """One of its conditions."""
        return condition_of(self.get(), kind)

    def says(self, kind: str, status: str, reason: str, words: str = "") -> Object:
        """Wait for a condition; fails with all of them."""

        def condition() -> Object | None:
            one = self.condition(kind)
            so = (one["status"], one.get("reason")) == (status, reason)
            return one if so and re.search(words, one["message"]) else None

        what = f"{kind}={status} {reason} /{words}/"
        try:
            return until(condition, what, READY_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.told()}") from None

    def settle(self, pipelines: int | None = None) -> Object:
        """Wait until all is as the spec asks, and every ring turns."""

        def settled() -> Object | None:
            found = self.get()
            wanted = found["spec"]["replicas"] if pipelines is None else pipelines
            status, generation = found.get("status") or {}, found["metadata"]["generation"]
            reconciling, ready = (condition_of(found, one) for one in ("Reconciling", "Ready"))
            so = (
                reconciling["status"] == "False"
                and reconciling.get("observedGeneration") == generation
                and ready["status"] == "True"
                and status.get("readyReplicas") == status.get("updatedReplicas") == wanted
                and len(self.all_pods("stage")) == wanted * status["stageCount"]
            )
            return found if so else None

        try:
            return until(settled, f"all of {self.name} being as its spec asks", READY_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.told()}") from None

    def told(self) -> str:
        """Its conditions in one line each."""
        told = (self.get().get("status") or {}).get("conditions") or ()
        return "; ".join(f"{c['type']}={c['status']} {c['reason']}: {c['message']}" for c in told)

    def left(self) -> list[str]:
        """What of it is in the namespace, in any state."""
        found = items(KINDS, *self._where, "--selector", f"stageline.dev/deployment={self.name}")
        return [f"{obj['kind']}/{obj['metadata']['name']}" for obj in found]


def life_of(pod: Object) -> Life:
    """The life of a pod now."""
    containers = pod["status"].get("containerStatuses") or ()
    restarts = sum(container["restartCount"] for container in containers)
    return Life(pod["metadata"]["uid"], restarts)
