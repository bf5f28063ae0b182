"""The fake nodes do on any API server what nodes do, as far as an operator can see."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_local.client import DEPLOYMENT, POD, Client
from support import podstatus
from support.fakenodes import PORT, FakeNodes
from support.kube import one_of
from support.pipeline import stage_documents

PLACE = POD.place("default")


@pytest.fixture(scope="module", params=["double", "real"])
def server(request):
    """The double, and a kube-apiserver."""
    with one_of(request) as server:
        yield server


@pytest.fixture
async def client(server):
    async with Client(server.url, token=server.token, ca_file=ca_file(server)) as client:
        yield client
        for kind, grace in ((DEPLOYMENT, None), (POD, 0)):
            for obj in await client.list(kind.place("default")):
                await client.delete(kind.of(obj), grace_seconds=grace)


@pytest.fixture
def nodes(server):
    with FakeNodes(server.url, token=server.token, ca_file=server.ca_file) as nodes:
        yield nodes


def ca_file(server):
    return Path(server.ca_file) if server.ca_file else None


def pod(name, document=None, component="stage"):
    env = [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    if document is not None:
        text = document.model_copy(update={"listen": f"$(POD_IP):{PORT}"}).model_dump_json()
        env.append({"name": "STAGELINE_DOCUMENT", "value": text})
    metadata = {"name": name, "labels": {"app.kubernetes.io/component": component}}
    container = {"name": "worker", "image": "worker", "env": env}
    spec = {"containers": [container], "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def until(client, name, condition, what):
    """The pod, once it is so; `condition` gets None when there is none."""
    found = None
    for _ in range(500):
        found = next((p for p in await client.list(PLACE) if p["metadata"]["name"] == name), None)
        if condition(found):
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{name} did not come to be {what} in 10 s: {found}")


def is_ready(pod):
    conditions = (pod or {}).get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def container(pod):
    return (pod["status"].get("containerStatuses") or [{}])[0]


async def ring(client, stages=2):
    documents = stage_documents("/toy", [1] * stages)
    for document in documents:
        await client.create(PLACE, pod(f"llama-r1-0-{document.stage}", document))
    found = [await until(client, f"llama-r1-0-{n}", is_ready, "Ready") for n in range(stages)]
    return f"{found[0]['status']['podIP']}:{PORT}"


async def report(address, condition, what):
    async with grpc.aio.insecure_channel(address) as channel:
        watch = services.PipelineStub(channel).Watch
        request = pb.WatchRequest(pipeline="llama-0", revision="r1")
        last = None
        try:
            async for last in watch(request, wait_for_ready=True, timeout=10):
                if condition(last):
                    return last
        except grpc.aio.AioRpcError as error:
            raise AssertionError(f"{what} was not reported: {error.details()}, {last}") from None
    raise AssertionError(f"{what} was not reported before the end: {last}")


async def test_a_pod_is_bound_gets_an_address_and_is_ready(client, nodes):
    await client.create(PLACE, pod("any"))
    found = await until(client, "any", is_ready, "Ready")
    assert found["spec"]["nodeName"].startswith("node-")
    assert found["status"]["phase"] == "Running"
    assert found["status"]["podIP"].startswith("127.")
    await client.delete(POD.of(found))
    await until(client, "any", lambda pod: pod is None, "gone")


@pytest.mark.parametrize(
    ("fate", "phase", "waits", "last"),
    [
        (podstatus.starting(), "Running", None, None),
        (podstatus.unschedulable("0/3 nodes"), "Pending", None, None),
        (podstatus.waiting("ImagePullBackOff", "none"), "Pending", "ImagePullBackOff", None),
        (podstatus.crashing(message="no layers"), "Running", "CrashLoopBackOff", "Error"),
        (podstatus.oom_killed(), "Running", "CrashLoopBackOff", "OOMKilled"),
        (podstatus.failed("Evicted", "disk"), "Failed", None, None),
    ],
    ids=lambda value: value.kind if isinstance(value, podstatus.Fate) else "",
)  # fmt: skip
async def test_a_fate_shows_in_status_and_can_change(client, nodes, fate, phase, waits, last):
    nodes.fate("doomed", fate)
    await client.create(PLACE, pod("doomed"))

    def as_told(pod):
        status = (pod or {}).get("status", {})
        first = container(pod) if pod else {}
        return (
            status.get("phase") == phase
            and bool(status.get("conditions"))
            and first.get("state", {}).get("waiting", {}).get("reason") == waits
            and first.get("lastState", {}).get("terminated", {}).get("reason") == last
        )

    found = await until(client, "doomed", as_told, fate.kind)
    assert not is_ready(found)
    if fate.kind != "failed":  # that one is over
        nodes.fate("doomed", podstatus.ready())
        await until(client, "doomed", is_ready, "Ready at last")


async def test_a_profile_pod_ends_with_its_profile(client, nodes):
    await client.create(PLACE, pod("profile", component="profile"))
    found = await until(
        client, "profile", lambda pod: pod and pod["status"]["phase"] == "Succeeded", "over"
    )
    message = container(found)["state"]["terminated"]["message"]
    from stageline_operator.profiling import read_profile

    assert read_profile(message).layers == 6


async def test_a_leader_reports_its_pods_and_what_it_is_told(client, nodes):
    address = await ring(client)
    first = await report(address, lambda r: r.state == pb.READY, "a ready ring")
    assert [stage.host for stage in first.stages] == ["llama-r1-0-0", "llama-r1-0-1"]
    nodes.die("llama-r1-0-1")
    second = await report(address, lambda r: r.sessions == 2, "a second session")
    assert second.stages[0].incarnation == first.stages[0].incarnation
    assert second.stages[1].incarnation != first.stages[1].incarnation
    nodes.ring("llama-*", pb.CONNECTING, "stage 1 hangs")
    await report(address, lambda r: r.message == "stage 1 hangs", "what it was told")
    nodes.ring("llama-*")
    await report(address, lambda r: r.state == pb.READY, "a ready ring again")
    await client.delete(f"{PLACE}/llama-r1-0-1")
    await report(address, lambda r: r.message == "stage 1 is not there", "the gap")


async def test_a_leader_of_another_pipeline_refuses(client, nodes):
    address = await ring(client, 1)
    async with grpc.aio.insecure_channel(address) as channel:
        watch = services.PipelineStub(channel).Watch
        reports = aiter(watch(pb.WatchRequest(revision="r2"), wait_for_ready=True))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(reports)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_lost_node_ends_no_pod_and_one_that_is_back_does(client, nodes):
    await client.create(PLACE, pod("any"))
    found = await until(client, "any", is_ready, "Ready")
    nodes.lose(found["spec"]["nodeName"])
    await until(client, "any", lambda pod: not is_ready(pod), "not Ready")
    await client.delete(POD.of(found))
    await asyncio.sleep(0.5)  # longer than an end takes
    assert await client.get(POD.of(found)), "a node that is lost has confirmed an end"
    nodes.find(found["spec"]["nodeName"])
    await until(client, "any", lambda pod: pod is None, "gone")


async def test_a_deployment_gets_pods_and_status_and_rolls(client, nodes):
    template = pod("ignored", component="router")
    labels = {"app": "router"}
    template = {"metadata": {"labels": labels}, "spec": template["spec"]}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "router"}}
    path = DEPLOYMENT.place("default", "router")
    await client.create(DEPLOYMENT.place("default"), {**deployment, "spec": spec})

    async def settled(generation):
        for _ in range(500):
            status = (await client.get(path)).get("status", {})
            wanted = {"observedGeneration": generation, "replicas": 2, "readyReplicas": 2}
            if {**wanted, "updatedReplicas": 2}.items() <= status.items():
                return {
                    p["metadata"]["name"] for p in await client.list(PLACE, labels="app=router")
                }
            await asyncio.sleep(0.02)
        raise AssertionError(f"the Deployment did not settle in 10 s: {status}")

    first = await settled(1)
    patch = {"spec": {"template": {"metadata": {"annotations": {"document": "2"}}}}}
    await client.merge_patch(path, patch)
    second = await settled(2)
    assert len(first | second) == 4
    await client.delete(path, propagation="Background")
    for name in second:
        await until(client, name, lambda pod: pod is None, "gone")
