"""Many PipelineDeployments at once, and the floor: the same children made by a plain client.

    KUBECONFIG=… python bench/scale.py 200

needs a cluster whose fake nodes make pods Ready, for example KWOK, with room for all pods. One
process here reports for all of them as their leaders would (fakeworker.py); what the operator sends
to the pods' addresses is led to it, for which the run needs root and iptables. The operator is the
real one, as a process of its own. Both parts make the same objects in a namespace of their own,
with as many requests at once; the floor waits for nothing on the way and knows beforehand what to
make, so it needs no profile pods.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from access import Server, by_kubeconfig, connected
from fakeworker import Pretence, working
from report import Line, breakdown, show
from watched import Calls, Operator, operating, writes

from stageline_local.client import POD, ApiError, Client, Kind, Object

CRD: Final = Path(__file__).parent.parent / "manifests" / "crd.yaml"
DEPLOYED: Final = Kind("stageline.dev/v1alpha1", "PipelineDeployment", "pipelinedeployments")
NAMESPACE: Final = Kind("v1", "Namespace", "namespaces", namespaced=False)
CHILDREN: Final = (
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("v1", "Service", "services"),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("apps/v1", "Deployment", "deployments"),
    Kind("apps/v1", "ControllerRevision", "controllerrevisions"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    POD,
)
OWNER: Final = "stageline.dev/deployment"
WORKER_PORT: Final = 7070
AT_ONCE: Final = 32
"""Requests; the operator has as many connections."""
LOOK_SECONDS: Final = 0.25
MANY: Final = 100
"""From so many on, looking as often would be felt in the figures."""
SETTLE_SECONDS: Final = 15.0
"""After the last is Ready: what trails behind belongs to the start."""
STANDSTILL_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 900.0
_SERVERS_OWN: Final = (
    "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields",
    "ownerReferences", "selfLink",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """What is asked for."""

    number: int
    pretence: Pretence
    node_label: tuple[str, str]
    rest_seconds: float

    @property
    def look_seconds(self) -> float:
        """From one look at how far it is to the next."""
        return LOOK_SECONDS if self.number < MANY else 1.0

    @property
    def pods(self) -> int:
        """Stages and a router each."""
        return self.number * (self.pretence.stages + 1)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the operator took."""

    seconds: float
    start_cpu: float
    cpu: float
    rest_cpu: float
    peak_bytes: int
    reconciles: int
    calls: Calls
    rest_writes: int


def main() -> None:
    run, network, log = _arguments()
    mark = secrets.token_hex(3)
    ours, plain = f"stageline-scale-{mark}", f"stageline-floor-{mark}"
    with by_kubeconfig() as (kubeconfig, server):
        asyncio.run(prepare(server))
        try:
            with working(server, run.pretence) as port, leading_here(network, port):
                with operating(["--kubeconfig", str(kubeconfig)], log) as operator:
                    measured = measure(operator, server, ours, run)
                    children = asyncio.run(children_of(server, ours))
                asyncio.run(remove(server, ours))
                floor = asyncio.run(plainly(server, plain, children, run))
        finally:
            asyncio.run(remove(server, ours, plain))
    tell(run, measured, floor, children)


def _arguments() -> tuple[Run, str, Path]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("number", type=int, nargs="?", default=20, help="PipelineDeployments")
    parser.add_argument("--stages", type=int, default=4, help="of each pipeline")
    parser.add_argument("--rest", type=float, default=30.0, help="seconds of rest to look at")
    parser.add_argument("--node-label", default="type=fake", help="of the fake nodes")
    parser.add_argument(
        "--pod-network", default="10.0.0.0/16", help="where the fake pods' addresses are"
    )
    parser.add_argument("--log", type=Path, help="where the operator's log goes (default: nowhere)")
    told = parser.parse_args()
    label, _, value = told.node_label.partition("=")
    run = Run(told.number, Pretence(told.stages), (label, value), told.rest)
    default = Path(tempfile.gettempdir()) / f"stageline-scale-{os.getpid()}.log"
    return run, told.pod_network, told.log or default


@contextlib.contextmanager
def leading_here(network: str, port: int) -> Iterator[None]:
    """What this machine sends to a worker in the network comes to `port` until the block ends."""
    rule = [
        "OUTPUT", "--proto", "tcp", "--destination", network, "--dport", str(WORKER_PORT),
        "--jump", "REDIRECT", "--to-ports", str(port),
    ]  # fmt: skip
    try:
        subprocess.run(["iptables", "--table", "nat", "--append", *rule], check=True)
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(
            f"{network} cannot be led to the fake workers: run as root, with iptables installed"
        ) from None
    try:
        yield
    finally:
        subprocess.run(["iptables", "--table", "nat", "--delete", *rule], check=True)


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
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return


def measure(operator: Operator, server: Server, namespace: str, run: Run) -> Measured:
    """Make them all, wait until all are Ready, and then for what happens at rest."""
    start_cpu, before = operator.cpu(), operator.calls()
    began = time.monotonic()
    asyncio.run(make_resources(server, namespace, run))
    before_look, since = 0, began
    while (ready := operator.resources_ready()) < run.number:
        if ready != before_look:
            before_look, since = ready, time.monotonic()
        elif time.monotonic() > since + STANDSTILL_SECONDS:
            asyncio.run(revive(server, namespace))
            since = time.monotonic()
        if time.monotonic() > began + PATIENCE_SECONDS:
            raise SystemExit(f"{ready} of {run.number} are Ready after {PATIENCE_SECONDS:g} s")
        time.sleep(run.look_seconds)
    seconds = time.monotonic() - began
    asyncio.run(confirm(server, namespace, run))
    time.sleep(SETTLE_SECONDS)
    calls, cpu, reconciles = operator.calls(), operator.cpu(), operator.reconciles()
    time.sleep(run.rest_seconds)
    return Measured(
        seconds, start_cpu, cpu, operator.cpu() - cpu, operator.peak_bytes(), reconciles,
        calls - before, writes(operator.calls() - calls),
    )  # fmt: skip


async def revive(server: Server, namespace: str) -> None:
    """Make pods Ready again whose fake node was late with a heartbeat, as a kubelet would."""
    async with connected(server) as client:
        pods = await client.list(POD.place(namespace), labels=OWNER, fields="status.phase=Running")
        await _together(client.merge_patch(POD.of(pod), _alive(pod), subresource="status")
                        for pod in pods if not _is_ready(pod))  # fmt: skip


def _alive(pod: Object) -> Object:
    conditions = pod["status"]["conditions"]
    ready = [{**one, "status": "True"} if one["type"] == "Ready" else one for one in conditions]
    return {"status": {"conditions": ready}}


async def make_resources(server: Server, namespace: str, run: Run) -> None:
    """All of them, as fast as they are taken."""
    async with connected(server) as client:
        await client.create(NAMESPACE.place(), _namespace(namespace))
        place = DEPLOYED.place(namespace)
        made = (resource(f"llama-{number}", run) for number in range(run.number))
        await _together(client.create(place, one) for one in made)


def resource(name: str, run: Run) -> Object:
    """One PipelineDeployment, whose pods go to the fake nodes."""
    label, value = run.node_label
    where = {
        "nodeSelector": {label: value},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
    }
    return {
        "apiVersion": DEPLOYED.api_version,
        "kind": DEPLOYED.kind,
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "hf://example/llama@main", "maxModelLen": 4096},
            "pipeline": {"stages": run.pretence.stages},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            **where,
            "router": {"podTemplate": {"spec": where}},
            # All leaders are one server, and every resource would have another authority.
            "security": {"tls": "Disabled"},
        },
    }


async def confirm(server: Server, namespace: str, run: Run) -> None:
    """The API server says the same."""
    async with connected(server) as client:
        found = await client.list(DEPLOYED.place(namespace))
        ready = sum(map(_is_ready, found))
        pods = await _pods(client, namespace)
    if (ready, pods) != (run.number, run.pods):
        raise SystemExit(f"{ready} of {run.number} are Ready, with {pods} pods, not {run.pods}")


async def children_of(server: Server, namespace: str) -> list[list[Object]]:
    """What the operator made, by resource, as somebody else would make it."""
    groups: dict[str, list[Object]] = {}
    async with connected(server) as client:
        for kind in CHILDREN:
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


async def plainly(server: Server, namespace: str, groups: list[list[Object]], run: Run) -> float:
    """Seconds from the first request until every pod is Ready."""
    async with connected(server) as client:
        await client.create(NAMESPACE.place(), _namespace(namespace))
        began = time.monotonic()
        await _in_turn(client, namespace, groups)
        while await _pods(client, namespace) < run.pods or await _waiting(client, namespace):
            if time.monotonic() > began + PATIENCE_SECONDS:
                raise SystemExit(f"the floor's pods are not Ready after {PATIENCE_SECONDS:g} s")
            await asyncio.sleep(run.look_seconds)
        return time.monotonic() - began


async def _in_turn(client: Client, namespace: str, groups: list[list[Object]]) -> None:
    """Pods are refused before their ServiceAccount, which is the first of a group."""
    kinds = {kind.kind: kind for kind in CHILDREN}
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(obj: Object) -> None:
        async with slots:
            await client.create(kinds[obj["kind"]].place(namespace), obj)

    async def group(account: Object, *others: Object) -> None:
        await one(account)
        await asyncio.gather(*map(one, others))

    await asyncio.gather(*(group(*objects) for objects in groups))


async def _together(calls: Iterable[object]) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(call: object) -> None:
        async with slots:
            await call  # type: ignore[misc]

    await asyncio.gather(*map(one, calls))


async def _pods(client: Client, namespace: str) -> int:
    """How many there are; the API server counts, so that looking costs next to nothing."""
    found = await client.get(f"{POD.place(namespace)}?limit=1")
    return len(found["items"]) + int(found["metadata"].get("remainingItemCount", 0))


async def _waiting(client: Client, namespace: str) -> int:
    """Pods that do not run; a fake node's pod is Ready from the moment that it runs."""
    return len(await client.list(POD.place(namespace), fields="status.phase!=Running"))


async def remove(server: Server, *namespaces: str) -> None:
    """With all that is in them; come back when they are gone."""
    async with connected(server) as client:
        for namespace in namespaces:
            await client.delete(NAMESPACE.place(name=namespace))
        for namespace in namespaces:
            while await _exists(client, namespace):  # noqa: ASYNC110  # of another process
                await asyncio.sleep(1.0)


async def _exists(client: Client, namespace: str) -> bool:
    try:
        await client.get(NAMESPACE.place(name=namespace))
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


def tell(run: Run, took: Measured, floor: float, children: list[list[Object]]) -> None:
    """Print it all."""
    kinds = Counter(obj["kind"] for group in children for obj in group)
    each = ", ".join(f"{count / run.number:g} {kind}" for kind, count in kinds.most_common())
    cpu = 1000 * (took.cpu - took.start_cpu) / run.number
    print(f"{run.number} PipelineDeployments of {run.pretence.stages} stages and a router")
    print(f"children of each: {each}; and a profile pod that comes and goes")
    print()
    show(
        Line("all Ready by the operator", took.seconds, "s"),
        Line("all Ready by a plain client (the floor)", floor, "s"),
        Line("operator / floor", took.seconds / floor, "x", 1.25),
        Line("CPU a resource, start included", 1000 * took.cpu / run.number, "ms", 50),
        Line("CPU a resource, after the start", cpu, "ms"),
        Line("CPU of the start", took.start_cpu, "s"),
        Line("API calls a resource", took.calls.total() / run.number, "", 20),
        Line("reconciles a resource", took.reconciles / run.number, ""),
        Line("peak memory", took.peak_bytes / 1e6, "MB", 250),
        Line(f"API writes in {run.rest_seconds:g} s of rest", took.rest_writes, "", 0),
        Line("CPU at rest", 100 * took.rest_cpu / run.rest_seconds, "% of a core"),
    )
    print("\nAPI calls a resource, by verb and kind:")
    breakdown(took.calls, run.number)


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _owners(obj: Object) -> list[Object]:
    return list(obj["metadata"].get("ownerReferences") or ())


def _is_ready(found: Object) -> bool:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


if __name__ == "__main__":
    main()
