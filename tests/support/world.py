"""A cluster of dictionaries: carries out decisions about one resource, and makes pods ready.

Its kubelet does in one tick what a real one does in seconds: profile pods end with a profile, stage
pods become ready, leaders report, pods that are deleted go.
"""

from __future__ import annotations

import base64
import copy
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from stageline_operator import names
from stageline_operator.decide import decide
from stageline_operator.decision import Decision
from stageline_operator.devices import Nodes
from stageline_operator.difference import covers
from stageline_operator.kinds import DEPLOYMENT, POD, Object, kind_of
from stageline_operator.labels import COMPONENT, PROFILE_COMPONENT, REVISION
from stageline_operator.observed import Observed, PipelineKey, PipelineReport
from stageline_operator.settings import RenderSettings
from support.objects import NAME, NOW, at, resource, stage_report
from support.profiles import dense

SETTINGS = RenderSettings()
Effect = tuple[str, str]
"""What was done, and to which child: ("create", "llama-profile-…")."""


class World:
    """One resource and its children; `never_ready` names pods that do not come up."""

    def __init__(self, **spec: object) -> None:
        self.resource = resource(**spec)
        self.resource |= {
            "apiVersion": "stageline.dev/v1alpha1", "kind": "PipelineDeployment", "status": {},
        }  # fmt: skip
        self.children: dict[object, dict[str, Object]] = {}
        self.profile = dense(6)
        self.now: datetime = NOW
        self.never_ready: Callable[[str], bool] = lambda name: False
        self.told: list[str] = []
        self.nodes = Nodes()
        self.node_reads = 0
        self._uid = 0

    # what the operator does

    def observed(self) -> Observed:
        return copy.deepcopy(Observed(self.resource, self.children, reports=dict(self._reports())))

    def decide(self) -> Decision:
        decision = decide(self.observed(), SETTINGS, self.now)
        if not decision.wants_nodes:
            return decision
        self.node_reads += 1
        return decide(replace(self.observed(), nodes=self.nodes), SETTINGS, self.now)

    def effects(self, decision: Decision) -> Iterator[tuple[Effect, Callable[[], None]]]:
        """Each write of a decision, in order, and what it does."""
        for obj in (*decision.first, *decision.apply):
            yield ("apply", obj["metadata"]["name"]), lambda obj=obj: self.put(obj)
        for patch in decision.patch:
            yield ("patch", patch.name), lambda patch=patch: self._patch(patch)
        for gone in decision.delete:
            yield ("delete", gone.name), lambda gone=gone: self._delete(gone)
        for obj in decision.create:
            yield ("create", obj["metadata"]["name"]), lambda obj=obj: self._create(obj)
        if decision.status is not None:
            yield ("status", NAME), lambda: self._tell(decision)

    def reconcile(self) -> list[Effect]:
        """Carry out one decision; what was done."""
        done = []
        for effect, carry_out in self.effects(self.decide()):
            carry_out()
            done.append(effect)
        return done

    def settle(self, rounds: int = 60) -> list[Effect]:
        """Reconcile, and let the nodes work, until nothing is done any more."""
        done: list[Effect] = []
        quiet = False
        for _ in range(rounds):
            effects = self.reconcile()
            if quiet and not effects:
                return done
            quiet = not effects
            done += effects
            self.tick()
        raise AssertionError(f"still at work after {rounds} rounds: {done[-5:]}")

    # what others do

    def tick(self, seconds: float = 1) -> None:
        """The nodes and the Deployment controller do all that is to be done."""
        self.now += timedelta(seconds=seconds)
        for name, pod in list(self.pods.items()):
            if "deletionTimestamp" in pod["metadata"]:
                del self.pods[name]
            elif not self.never_ready(name):
                self._run(pod)
        for deployment in self.children.get(DEPLOYMENT, {}).values():
            wanted = deployment["spec"]["replicas"]
            ready = {"availableReplicas": wanted, "updatedReplicas": wanted}
            deployment["status"] = ready | {"observedGeneration": 1}

    def change(self, **spec: object) -> None:
        """Edit the spec."""
        self.resource["spec"] |= spec
        self.resource["metadata"]["generation"] += 1

    @property
    def pods(self) -> dict[str, Object]:
        return self.children.setdefault(POD, {})

    @property
    def stage_pods(self) -> set[str]:
        return {name for name, pod in self.pods.items() if names.pod_key(pod) is not None}

    def condition(self, kind: str) -> Object:
        conditions = self.resource["status"].get("conditions", [])
        return next(one for one in conditions if one["type"] == kind)

    def names(self) -> dict[str, list[str]]:
        """What there is, by kind."""
        return {kind.kind: sorted(kept) for kind, kept in self.children.items() if kept}

    def put(self, obj: Object) -> None:
        """Server-side apply, as far as it matters here."""
        obj = copy.deepcopy(obj)
        kept = self.children.setdefault(kind_of(obj), {})
        before = kept.get(obj["metadata"]["name"])
        self._uid += 1
        born = {"uid": f"u{self._uid}", "generation": 1, "creationTimestamp": self._time()}
        if before is not None:
            born = {key: before["metadata"][key] for key in born}
            obj = {**before, **obj}
        obj["metadata"] |= born
        kept[obj["metadata"]["name"]] = obj

    def _create(self, obj: Object) -> None:
        assert obj["metadata"]["name"] not in self.pods, "made twice"
        self.put(obj)

    def _patch(self, patch: object) -> None:
        metadata = self.children[patch.kind][patch.name]["metadata"]
        for part, values in patch.body["metadata"].items():
            metadata.setdefault(part, {}).update(values)

    def _delete(self, gone: object) -> None:
        kept = self.children[gone.kind]
        assert kept[gone.name]["metadata"]["uid"] == gone.uid, "deletes what it has not seen"
        if gone.kind == POD and not gone.force and kept[gone.name]["spec"].get("nodeName"):
            kept[gone.name]["metadata"]["deletionTimestamp"] = self._time()
        else:
            del kept[gone.name]

    def _tell(self, decision: Decision) -> None:
        assert not covers(self.resource["status"], decision.status) or not covers(
            decision.status, self.resource["status"]
        ), "a status that changes nothing is written"
        self.resource["status"] = decision.status
        self.told += [notice.reason for notice in decision.notices]

    def _run(self, pod: Object) -> None:
        pod["spec"]["nodeName"] = "node-1"
        status = {"phase": "Running", "podIP": "10.0.0.1"}
        if pod["metadata"]["labels"].get(COMPONENT) == PROFILE_COMPONENT:
            packed = zlib.compress(self.profile.model_dump_json().encode())
            ended = {"exitCode": 0, "message": base64.b64encode(packed).decode()}
            container = {"name": "profile", "state": {"terminated": ended}}
            pod["status"] = {"phase": "Succeeded", "containerStatuses": [container]}
            return
        running = {"name": "worker", "ready": True, "restartCount": 0}
        running["state"] = {"running": {"startedAt": self._time()}}
        conditions = [{"type": "Ready", "status": "True"}]
        pod["status"] = status | {"conditions": conditions, "containerStatuses": [running]}

    def _reports(self) -> Iterator[tuple[PipelineKey, PipelineReport]]:
        """A ring turns when all of its stages are ready."""
        rings: dict[PipelineKey, list[bool]] = {}
        for pod in self.pods.values():
            if (key := names.pod_key(pod)) is not None:
                ready = "conditions" in pod.get("status", {})
                rings.setdefault(key.pipeline, []).append(
                    ready and "deletionTimestamp" not in pod["metadata"]
                )
        for key, stages in rings.items():
            turns = all(stages) and len(stages) == self.stages_of(key)
            yield (
                key,
                PipelineReport(
                    names.pipeline_name(NAME, key),
                    key.revision,
                    "Ready" if turns else "Waiting",
                    sessions=int(turns),
                    stages=tuple(stage_report(number) for number in range(len(stages))),
                ),
            )

    def stages_of(self, key: PipelineKey) -> int:
        """How many stages a pipeline has, by the record of its revision."""
        for kept in self.children.values():
            for obj in kept.values():
                if obj["kind"] == "ControllerRevision" and obj["data"]["revision"] == key.revision:
                    return len(obj["data"]["plan"]["partition"])
        return 0

    def _time(self) -> str:
        return at((self.now - NOW).total_seconds())


def world(**spec: object) -> World:
    """One of two stages, unless the spec says otherwise, that nobody has seen yet."""
    return World(**{"pipeline": {"stages": 2}, **spec})


def settled(**spec: object) -> World:
    """The same, once the operator has nothing more to do."""
    made = world(**spec)
    made.settle()
    return made


def revisions(of: World) -> set[str]:
    """Of its stage pods."""
    return {pod["metadata"]["labels"][REVISION] for pod in map(of.pods.get, of.stage_pods)}


def uids(of: World) -> dict[str, str]:
    """Of its stage pods, by name."""
    return {name: of.pods[name]["metadata"]["uid"] for name in of.stage_pods}


def made_of(effects: list[Effect], verb: str) -> list[str]:
    """The names of the children to which this was done."""
    return [name for done, name in effects if done == verb]
