"""GPUs of which only the labels of their nodes say how much memory they have."""

import contextlib

import pytest

from stageline_local.client import ApiError
from stageline_operator.kinds import PIPELINE_DEPLOYMENT
from support.objects import gpu_node

NODES = "/api/v1/nodes"
GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}


@contextlib.asynccontextmanager
async def node(world, memory):
    """A node of the test's own, which its resource asks for."""
    name = f"{world.namespace}-gpu"
    made = gpu_node(name, memory, test=world.namespace)
    await world.client.create(NODES, {**made, "status": {}})
    with contextlib.suppress(ApiError):
        await world.client.merge_patch(
            f"{NODES}/{name}", {"status": made["status"]}, subresource="status"
        )
    try:
        yield {"nodeSelector": {"test": world.namespace}, **GPU}
    finally:
        await world.client.delete(f"{NODES}/{name}")


async def planned(world, reason, words):
    """The condition, once it says so."""

    async def is_so():
        resource = await world.get(PIPELINE_DEPLOYMENT, "llama")
        told = (resource.get("status") or {}).get("conditions") or []
        return next(
            (c for c in told if c["type"] == "Planned" and c["reason"] == reason
             and words in c["message"]), None,
        )  # fmt: skip

    return await world.eventually(is_so, f"Planned is {reason} and says {words!r}")


def lists_of_nodes(world):
    return [seen for seen in world.proxy.seen if seen.path == NODES]


async def test_a_plan_is_made_for_the_memory_that_the_label_says(world):
    async with node(world, 81_559) as spec, world.operating():
        await world.create(**spec)
        words = f"GPU memory is by label nvidia.com/gpu.memory of {world.namespace}-gpu"
        await planned(world, "Planned", words)
        assert len(lists_of_nodes(world)) == 1
        await world.client.merge_patch(
            f"{NODES}/{world.namespace}-gpu",
            {"metadata": {"labels": {"nvidia.com/gpu.memory": "1"}}},
        )
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"replicas": 2}})
        await world.settled()
        assert len(lists_of_nodes(world)) == 1, "nodes are read when nothing is planned"


@pytest.fixture
def hasty(monkeypatch):
    """Nodes are read again within moments."""
    monkeypatch.setattr("stageline_operator.planning._NODES_AGAIN_SECONDS", 0.3)
    monkeypatch.setattr("stageline_operator.nodes.KEPT_SECONDS", 0.2)


async def test_a_model_that_no_gpu_holds_is_refused_until_one_does(world, hasty):
    async with node(world, 8) as spec, world.operating():
        await world.create(**spec)
        await planned(world, "PlanRefused", "its pods offer 8 MiB")
        labels = {"metadata": {"labels": {"nvidia.com/gpu.memory": "81559"}}}
        await world.client.merge_patch(f"{NODES}/{world.namespace}-gpu", labels)
        await planned(world, "Planned", "every stage fits")
        await world.settled()


async def test_an_operator_that_may_not_read_nodes_plans_without_them_and_says_so(world):
    world.proxy.refuse("nodes is forbidden", lambda method, path: path == NODES)
    async with world.operating():
        await world.create(**GPU)
        await planned(
            world, "PlannedWithoutMemory", "is not known (nodes may not be read: nodes is forbidden"
        )
        await world.settled()
