"""Whatever is wrong is told by a condition, and when it is right again all is well without help."""

import asyncio
import contextlib
import copy
import functools
import itertools
from datetime import timedelta

import pytest
import yaml

from stageline.v1 import pipeline_pb2 as pb
from stageline_api.crd import crd
from stageline_local.client import ApiError
from stageline_operator.definition import CRD, NAME
from stageline_operator.kinds import EVENT, PIPELINE_DEPLOYMENT, POD, Kind
from stageline_operator.labels import STAGE as STAGE_LABEL
from stageline_operator.settings import RenderSettings
from support.kube import DoubleServer
from support.podstatus import crashing, failed, oom_killed, ready, unschedulable, waiting
from support.wrong import manifest
from support.wrong_manifests import LATER

GPU = "nvidia.com/gpu"
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
LIMITS = Kind("v1", "LimitRange", "limitranges")
STAGE, ROUTER, PROFILE = "llama-*-0-1", "llama-router-*", "llama-profile-*"
NOT_FOUND = 'persistentvolumeclaim "models" not found'
CAUSES = {
    "an image that cannot be pulled": (
        STAGE, waiting("ErrImagePull", "worker:nope: not found"),
        "StageImagePull", "worker:nope: not found: check spec.image",
    ),
    "GPUs that nobody has": (
        STAGE, unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        "StageUnschedulable", "3 Insufficient nvidia.com/gpu: add nodes that fit",
    ),
    "a claim that is missing": (
        PROFILE, unschedulable(NOT_FOUND), "ProfileFailed", f"{NOT_FOUND}: make the claim",
    ),
    "a claim that was deleted": (
        STAGE, unschedulable(NOT_FOUND), "StageVolume", f"{NOT_FOUND}: make the claim",
    ),
    "a Secret that is missing": (
        STAGE, waiting("CreateContainerConfigError", 'secret "huggingface" not found'),
        "StageConfig", 'secret "huggingface" not found: check the Secrets',
    ),
    "credentials that are wrong": (
        PROFILE, crashing(1, "hf://a/b cannot be read: the hub does not accept the token"),
        "ProfileFailed", "exit code 1: hf://a/b cannot be read: the hub does not accept the token",
    ),
    "a model that was deleted": (
        STAGE, crashing(1, "file:///models/x: there is no such folder"),
        "StageCrashed", "exit code 1: file:///models/x: there is no such folder",
    ),
    "a download that fails": (
        STAGE, crashing(3, "hf://a/b cannot be read: the hub is not reached (Connection refused)"),
        "StageCrashed", "exit code 3: hf://a/b cannot be read: the hub is not reached",
    ),
    "too little memory": (
        STAGE, oom_killed(), "StageOutOfMemory", "raise the memory in spec.resources.limits",
    ),
    "a router's image": (
        ROUTER, waiting("ErrImagePull", "router:nope: not found"),
        "RouterFailed", "router:nope: not found: check spec.router.image",
    ),
}  # fmt: skip


@pytest.fixture
def impatient(monkeypatch):
    """What nothing tells us of is looked at again within moments."""
    monkeypatch.setattr("stageline_operator.memory.ASK_AGAIN_SECONDS", 0.3)
    monkeypatch.setattr("stageline_operator.definition._LOOK_SECONDS", 0.3)


async def told(world, kind, reason, words, status="False"):
    """The condition, once it says so."""

    async def is_told():
        resource = await world.get(PIPELINE_DEPLOYMENT, "llama")
        for condition in (resource.get("status") or {}).get("conditions") or []:
            if (condition["type"], condition["reason"]) == (kind, reason):
                return condition if words in condition["message"] else None
        return None

    found = await world.eventually(is_told, f"{kind} is {reason} and says {words!r}")
    assert found["status"] == status


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_pod_in_trouble_is_told_and_recovers_when_the_cause_is_gone(world, cause):
    pattern, fate, reason, words = CAUSES[cause]
    world.nodes.fate(pattern, fate)
    async with world.operating():
        await world.create()
        await told(world, "Ready", reason, words)
        world.nodes.mend(pattern)
        await world.settled()


async def test_a_model_that_is_deleted_while_it_is_served_is_told_and_recovers(world):
    async with world.operating():
        await world.create()
        await world.settled()
        pattern, fate, reason, words = CAUSES["a model that was deleted"]
        world.nodes.fate(pattern, fate)  # a stage dies, and finds nothing to load any more
        await told(world, "Ready", reason, words)
        world.nodes.mend(pattern)
        await world.settled()


async def test_a_pod_that_is_evicted_is_replaced_and_its_neighbour_stays(world):
    async with world.operating():
        await world.create()
        await world.settled()
        before = await world.list(POD)
        (name,) = (name for name in before if name.endswith("-0-1"))
        world.nodes.fate(name, failed("Evicted", "The node was low on resource: memory."))

        async def is_another():
            pod = await world.get(POD, name)
            return pod and pod["metadata"]["uid"] != before[name]["metadata"]["uid"]

        await world.eventually(is_another, "the pod is replaced")
        said = functools.partial(_is_said, world, "StageEvicted", "The node was low on resource")
        await world.eventually(said, "an Event says that it was evicted")
        world.nodes.mend(name)
        resource = await world.settled(seconds=30)
    (leader,) = (name for name in before if name.endswith("-0-0"))
    after = await world.get(POD, leader)
    assert after["metadata"]["uid"] == before[leader]["metadata"]["uid"]
    assert [stage.get("replacements", 0) >= 1 for stage in resource["status"]["stages"]] == [
        False, True,
    ]  # fmt: skip


async def test_a_ring_that_breaks_is_told_with_the_stage_at_fault(world):
    async with world.operating():
        await world.create()
        await world.settled()
        world.nodes.ring("llama-*", pb.CONNECTING, "stage 1 did not answer within 10 s")
        await told(world, "Ready", "RingBroken", "stage 1 did not answer within 10 s")
        world.nodes.ring("llama-*")
        await world.settled()


async def test_a_rollout_that_cannot_come_up_leaves_the_old_serving_and_says_why(world):
    async with world.operating():
        await world.create(image="worker:1")
        await world.settled()
        before = await world.list(POD)
        world.nodes.fate(STAGE, waiting("ErrImagePull", "worker:2: not found"))
        world.nodes.fate(next(name for name in before if name.endswith("-0-1")), ready())
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"image": "worker:2"}})
        await told(world, "Ready", "RolloutBlocked", "worker:2: not found", status="True")
        after = await world.list(POD)
        kept = {name: after[name]["metadata"]["uid"] for name in before if name in after}
        assert kept == {name: pod["metadata"]["uid"] for name, pod in before.items()}
        world.nodes.mend(STAGE)
        await world.settled()


async def test_a_stage_that_fails_again_and_again_is_given_up_and_said_so(world, monkeypatch):
    monkeypatch.setattr("stageline_operator.healing.FIRST_WAIT", timedelta(seconds=0.1))
    monkeypatch.setattr("stageline_operator.healing.LONGEST_WAIT", timedelta(seconds=0.2))
    async with world.operating():
        await world.create()
        await world.settled()
        world.nodes.fate(STAGE, failed("Evicted", "The node was low on resource: memory."))
        await told(world, "Stalled", "RestartBudgetSpent", "stage 1", status="True")
        world.nodes.mend(STAGE)
        path = {"spec": {"image": "worker:2"}}
        await world.patch(PIPELINE_DEPLOYMENT, "llama", path)
        await world.settled()


async def test_every_spec_that_cannot_be_served_is_stalled_and_a_good_one_is_served(world):
    # The fake nodes' model is so small that it fits whatever a row offers.
    rows = [row for row in LATER if row.what != "stages that are too small"]
    bad = set()
    async with world.operating(settings=RenderSettings()):
        for number, row in enumerate(rows):
            spec = yaml.safe_load(yaml.safe_dump(manifest(row.change)))["spec"]
            with contextlib.suppress(ApiError):  # the CRD's own rules know some of them
                await world.create(f"bad-{number}", **spec)
                bad.add(f"bad-{number}")
        await world.create("good", model={"uri": "pvc://models/x"})

        async def are_stalled():
            found = await world.list(PIPELINE_DEPLOYMENT)
            return all(_is_stalled(found[name]) for name in bad)

        await world.eventually(are_stalled, "each is stalled")
        await world.settled("good")
        pods = await world.list(POD)
    assert len(bad) > len(rows) // 2
    stages = [name for name, pod in pods.items() if STAGE_LABEL in pod["metadata"]["labels"]]
    assert len(stages) == 2, stages
    assert all(name.startswith("good-") for name in stages), stages


def _is_stalled(resource):
    told = (resource.get("status") or {}).get("conditions") or []
    return any((one["type"], one["status"]) == ("Stalled", "True") for one in told)


async def _is_said(world, reason, words):
    """The condition may be brief; the Event that told of it stays."""
    events = (await world.list(EVENT)).values()
    return any(event["reason"] == reason and words in event["note"] for event in events)


# What an API server refuses


@contextlib.asynccontextmanager
async def made(world, kind, name, **body):
    """An object, until the block ends."""
    head = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
    await world.client.create(kind.path(world.namespace), {**head, **body})
    try:
        yield
    finally:
        await world.delete(kind, name)


@contextlib.asynccontextmanager
async def quota(world, devices):
    """So many GPUs; the controller that keeps the counts is the test."""
    name = f"requests.{GPU}"
    async with made(world, QUOTA, "gpus", spec={"hard": {name: devices}}):
        path = QUOTA.path(world.namespace, "gpus")
        counts = {"status": {"hard": {name: devices}, "used": {name: "0"}}}
        await world.client.merge_patch(path, counts, subresource="status")
        yield


@contextlib.asynccontextmanager
async def restricted(world):
    """The namespace wants what no pod with a folder of the node has."""
    path = f"/api/v1/namespaces/{world.namespace}"
    label = "pod-security.kubernetes.io/enforce"
    await world.client.merge_patch(path, {"metadata": {"labels": {label: "restricted"}}})
    yield
    await world.client.merge_patch(path, {"metadata": {"labels": {label: None}}})


def limited(world):
    """No container may have more memory than this."""
    limit = {"type": "Container", "max": {"memory": "1Gi"}}
    return made(world, LIMITS, "small", spec={"limits": [limit]})


THREE = {"pipeline": {"stages": 3}, "resources": {"limits": {GPU: 1}}}
LARGE = {"resources": {"limits": {"memory": "2Gi"}}}
REFUSALS = {
    "a quota that forbids the third stage": (
        lambda world: quota(world, "2"), THREE, 3,
        'pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, '
        "used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2",
        "QuotaExceeded", "limited: requests.nvidia.com/gpu=2: raise the quota, or lower",
    ),
    "a level of Pod Security": (
        restricted, {}, 0,
        'pods "x" is forbidden: violates PodSecurity "restricted:latest": restricted volume types',
        "ChildRefused", "take out of the podTemplate what the namespace's level forbids",
    ),
    "a LimitRange": (
        limited, LARGE, 1,
        'pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi',
        "ChildRefused", "usage per Container is 1Gi, but limit is 2Gi: bring spec.resources",
    ),
}  # fmt: skip
"""What makes it so, the spec, how many pods are allowed, the sentence, the reason and its words."""


@contextlib.asynccontextmanager
async def policy(world, which):
    """A real server has the real thing; our own answers with the sentence of a real one."""
    make, _, allowed, sentence, *_ = REFUSALS[which]
    if not isinstance(world.api, DoubleServer):
        async with make(world):
            yield
        return
    pods = itertools.count()

    def is_one_too_many(method, path):
        return method == "POST" and path.endswith("/pods") and next(pods) >= allowed

    allow = world.proxy.refuse(sentence, is_one_too_many)
    yield
    allow()


@pytest.mark.parametrize("which", REFUSALS)
async def test_a_pod_that_is_refused_is_told_and_made_when_the_policy_allows_it(
    world, impatient, which
):
    _, spec, _, _, reason, words = REFUSALS[which]
    async with world.operating():
        async with policy(world, which):
            await world.create(**spec)
            await told(world, "Ready", reason, words)
        await world.settled()


async def test_in_a_namespace_that_ends_nothing_is_tried_in_a_hurry(world):
    async with world.operating():
        await world.create()
        await world.settled()
        await world.client.delete(f"/api/v1/namespaces/{world.namespace}")
        for name in await world.list(POD):
            await world.delete(POD, name, grace_seconds=0)
        await told(
            world, "Ready", "NamespaceTerminating",
            "because it is being terminated: it ends with its namespace",
        )  # fmt: skip
        await world.quiet()
        before = len(world.proxy.writes())
        await asyncio.sleep(2)
        assert world.proxy.writes()[before:] == []
        await _begin_anew(world)
        await world.create()
        await world.settled()


async def _begin_anew(world):
    """The namespace ends, and another of its name begins; the controllers for that are the test."""
    path = f"/api/v1/namespaces/{world.namespace}"
    await world.clean()
    ending = await world.client.get(path)
    await world.client._call("PUT", f"{path}/finalize", body={**ending, "spec": {}})

    async def is_made():
        with contextlib.suppress(ApiError):
            metadata = {"name": world.namespace}
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
            return await world.client.create("/api/v1/namespaces", body)

    await world.eventually(is_made, "the namespace is there anew")


async def test_a_crd_that_is_older_than_the_operator_is_told_and_so_is_a_new_one(world, impatient):
    path = CRD.path("", NAME)
    old = copy.deepcopy(crd())
    model = old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"][
        "properties"
    ]["model"]
    del model["properties"]["cache"]
    model.pop("x-kubernetes-validations", None)
    await world.client.merge_patch(path, {"spec": old["spec"]})
    try:
        async with world.operating():
            await world.create()
            await world.settled()
            words = "older than the operator and drops spec.model.cache: apply manifests/crd.yaml"
            await told(world, "Planned", "PlannedWithOldCRD", words, status="True")
            await world.client.merge_patch(path, {"spec": crd()["spec"]})
            await told(world, "Planned", "PlannedWithoutMemory", "", status="True")
    finally:
        await world.client.merge_patch(path, {"spec": crd()["spec"]})
