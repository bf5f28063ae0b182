"""The PipelineDeployments of scale.py: made, found Ready, read as children, removed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from typing import Final

import yaml
from access import Server, connected
from fakeworker import Pretence

from stageline_local.client import POD, SECRET, ApiError, Client, Kind, Object

CRD: Final = Path(__file__).parent.parent / "manifests" / "crd.yaml"
DEPLOYED: Final = Kind("stageline.dev/v1alpha1", "PipelineDeployment", "pipelinedeployments")
NAMESPACE: Final = Kind("v1", "Namespace", "namespaces", namespaced=False)
CHILDREN: Final = (
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    SECRET,
    Kind("v1", "Service", "services"),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("apps/v1", "Deployment", "deployments"),
    Kind("apps/v1", "ControllerRevision", "controllerrevisions"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    POD,
)
OWNER: Final = "stageline.dev/deployment"
PER_NAMESPACE: Final = 200
AT_ONCE: Final = 32
"""Requests; the operator has as many connections."""
_LOOK_SECONDS: Final = 0.25
_SERVERS_OWN: Final = (
    "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields",
    "ownerReferences", "selfLink",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is asked for."""

    number: int
    pretence: Pretence
    node_label: tuple[str, str]
    own_models: bool = False
    """Instead of one for all."""
    per_namespace: int = PER_NAMESPACE
    """PipelineDeployments, at most."""

    def namespaces(self, name: str) -> list[str]:
        """As many as it takes."""
        return [f"{name}-{number}" for number in range(-(-self.number // self.per_namespace))]

    @property
    def pods(self) -> int:
        """Stages and a router each."""
        return self.number * (self.pretence.stages + 1)


async def prepare(server: Server) -> None:
    """The cluster knows PipelineDeployments."""
    definition = yaml.safe_load(CRD.read_text())
    path = (
        f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}"
    )
    async with connected(server) as client:
        await client.apply(path, definition, manager="stageline-bench")
        while True:
            try:
                await client.get(DEPLOYED.place())
            except ApiError as error:
                if error.status not in (404, 429):  # 429: its storage is being prepared
                    raise
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                return


async def revive(server: Server, namespaces: Sequence[str]) -> None:
    """Make pods Ready again whose fake node was late with a heartbeat, as a kubelet would."""
    async with connected(server) as client:
        for namespace in namespaces:
            place = POD.place(namespace)
            pods = await client.list(place, labels=OWNER, fields="status.phase=Running")
            await together(client.merge_patch(POD.of(pod), _alive(pod), subresource="status")
                            for pod in pods if not _is_ready(pod))  # fmt: skip


def _alive(pod: Object) -> Object:
    conditions = pod["status"]["conditions"]
    ready = [{**one, "status": "True"} if one["type"] == "Ready" else one for one in conditions]
    return {"status": {"conditions": ready}}


async def make_resources(server: Server, namespaces: Sequence[str], fleet: Fleet) -> None:
    """All of them, as fast as they are taken."""
    async with connected(server) as client:
        for namespace in namespaces:
            await client.create(NAMESPACE.place(), namespace_of(namespace))
        made = (resource(f"llama-{number}", fleet) for number in range(fleet.number))
        places = map(DEPLOYED.place, cycle(namespaces))
        await together(client.create(place, one) for place, one in zip(places, made, strict=False))


def resource(name: str, fleet: Fleet) -> Object:
    """One PipelineDeployment, whose pods go to the fake nodes."""
    label, value = fleet.node_label
    model = name if fleet.own_models else "llama"
    where: Object = {
        "nodeSelector": {label: value},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    }
    return {
        "apiVersion": DEPLOYED.api_version,
        "kind": DEPLOYED.kind,
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": f"hf://example/{model}@main", "maxModelLen": 4096},
            "pipeline": {"stages": fleet.pretence.stages},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            **where,
            "router": {"podTemplate": {"spec": where}},
            # All leaders are one server, and every resource would have another authority.
            "security": {"tls": "Disabled"},
        },
    }


async def confirm(server: Server, namespaces: Sequence[str], fleet: Fleet) -> None:
    """The API server says the same."""
    async with connected(server) as client:
        found = [one for namespace in namespaces
                 for one in await client.list(DEPLOYED.place(namespace))]  # fmt: skip
        ready = sum(map(_is_ready, found))
        pods = await count_pods(client, namespaces)
    if (ready, pods) != (fleet.number, fleet.pods):
        raise SystemExit(f"{ready} of {fleet.number} are Ready, with {pods} pods, not {fleet.pods}")


async def children_of(server: Server, namespaces: Sequence[str]) -> list[list[Object]]:
    """What the operator made, by resource, as somebody else would make it."""
    groups: dict[str, list[Object]] = {}
    async with connected(server) as client:
        for namespace, kind in product(namespaces, CHILDREN):
            for obj in await client.list(kind.place(namespace), labels=OWNER):
                if any(ref["kind"] == DEPLOYED.kind for ref in _owners(obj)):
                    groups.setdefault(obj["metadata"]["labels"][OWNER], []).append(afresh(obj))
    return list(groups.values())


def afresh(obj: Object) -> Object:
    """The object without what the API server, a scheduler or a node has put into it."""
    metadata = {k: v for k, v in obj["metadata"].items() if k not in (*_SERVERS_OWN, "namespace")}
    made = {k: v for k, v in obj.items() if k != "status"} | {"metadata": metadata}
    if obj["kind"] == "Pod":
        made["spec"] = {k: v for k, v in obj["spec"].items() if k != "nodeName"}
    if obj["kind"] == "Service":
        headless = obj["spec"].get("clusterIP") == "None"
        dropped = ("clusterIPs", "clusterIP") if not headless else ("clusterIPs",)
        made["spec"] = {k: v for k, v in obj["spec"].items() if k not in dropped}
    return made


async def together(calls: Iterable[object]) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(call: object) -> None:
        async with slots:
            await call  # type: ignore[misc]

    await asyncio.gather(*map(one, calls))


async def count_pods(client: Client, namespaces: Sequence[str]) -> int:
    """How many there are; the API server counts, so that looking costs next to nothing."""
    found = [await client.get(f"{POD.place(namespace)}?limit=1") for namespace in namespaces]
    more = (int(one["metadata"].get("remainingItemCount", 0)) for one in found)
    return sum(more) + sum(len(one["items"]) for one in found)


async def waiting_pods(client: Client, namespaces: Sequence[str]) -> int:
    """Pods that do not run; a fake node's pod is Ready from the moment that it runs."""
    places = map(POD.place, namespaces)
    found = [await client.list(place, fields="status.phase!=Running") for place in places]
    return sum(map(len, found))


async def remove(server: Server, fleet: Fleet, *namespaces: str) -> None:
    """With all that is in them; come back when they are gone.

    Without nodes there is nobody who would empty a namespace, so that is done here, and the empty
    ones stay.
    """
    async with connected(server) as client:
        for namespace in namespaces:
            if fleet.pretence.nodes:
                await _empty(client, namespace)
            await client.delete(NAMESPACE.place(name=namespace))
        for namespace in namespaces:
            while not fleet.pretence.nodes and await _exists(client, namespace):  # noqa: ASYNC110
                await asyncio.sleep(1.0)


async def _empty(client: Client, namespace: str) -> None:
    """A hundred of a kind in a request: thousands would take longer than a client waits."""
    for kind, which in ((DEPLOYED, ""), *((kind, f"&labelSelector={OWNER}") for kind in CHILDREN)):
        some = f"{kind.place(namespace)}?limit=100{which}"
        while (await client.get(some))["items"]:
            await client.delete(some)
            await asyncio.sleep(_LOOK_SECONDS)


async def _exists(client: Client, namespace: str) -> bool:
    try:
        await client.get(NAMESPACE.place(name=namespace))
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


def namespace_of(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _owners(obj: Object) -> list[Object]:
    return list(obj["metadata"].get("ownerReferences") or ())


def _is_ready(found: Object) -> bool:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
