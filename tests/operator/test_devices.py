"""Which nodes count for the memory of a stage's GPUs, and what a plan made of them is."""

import asyncio
from dataclasses import replace

import pytest

from stageline_api.plan_request import plan_request
from stageline_operator.cluster import Refused
from stageline_operator.devices import Nodes, answered, asks_nodes
from stageline_operator.kinds import CONTROLLER_REVISION, NODE
from stageline_operator.nodes import NodeReader
from support.memory_cluster import MemoryCluster
from support.objects import deployment, gpu_node, resource
from support.world import World

MIB = 1 << 20
ONE = {"limits": {"nvidia.com/gpu": 1}}
SPOT = {"key": "spot", "value": "yes", "effect": "NoSchedule"}
SMALL, LARGE = gpu_node("small", 24_576, tier="a"), gpu_node("large", 81_559, tier="b")
OFFERS = {
    "the smallest": ({}, [LARGE, SMALL], 24_576),
    "one that has what nodeSelector asks": (
        {"nodeSelector": {"tier": "b"}}, [LARGE, SMALL], 81_559,
    ),
    "none that lacks it": ({"nodeSelector": {"tier": "c"}}, [LARGE, SMALL], "no node that fits"),
    "none without GPUs": ({}, [LARGE, gpu_node("cpu", 8_192, gpus=0)], 81_559),
    "none with too few": (
        {"resources": {"limits": {"nvidia.com/gpu": 4}}},
        [LARGE, gpu_node("few", 8_192, gpus=2)], 81_559,
    ),
    "none with a taint": ({}, [LARGE, gpu_node("spot", 8_192, taints=(SPOT,))], 81_559),
    "one whose taint is tolerated": (
        {"tolerations": [{"key": "spot", "value": "yes", "effect": "NoSchedule"}]},
        [LARGE, gpu_node("spot", 8_192, taints=(SPOT,))], 8_192,
    ),
    "none whose taint has another value": (
        {"tolerations": [{"key": "spot", "value": "no"}]},
        [LARGE, gpu_node("spot", 8_192, taints=(SPOT,))], 81_559,
    ),
    "one whose taint is tolerated as any": (
        {"tolerations": [{"operator": "Exists"}]},
        [LARGE, gpu_node("spot", 8_192, taints=({**SPOT, "effect": "NoExecute"},))], 8_192,
    ),
    "one that is only not preferred": (
        {}, [LARGE, gpu_node("spot", 8_192, taints=({**SPOT, "effect": "PreferNoSchedule"},))],
        8_192,
    ),
    "one that is unwell and will be back": (
        {}, [LARGE, gpu_node("ill", 8_192, taints=(
            {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"},
        ))], 8_192,
    ),
    "none that was cordoned": (
        {}, [LARGE, gpu_node("going", 8_192, taints=(
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
        ))], 81_559,
    ),
    "nothing where one has no label": (
        {}, [LARGE, gpu_node("new", None)], "node new has no label nvidia.com/gpu.memory",
    ),
    "nothing where a label is no number": (
        {}, [LARGE, gpu_node("odd", "80GB")], "node odd has no label nvidia.com/gpu.memory",
    ),
    "nothing where there is no node": ({}, [], "no node that fits offers 1 of nvidia.com/gpu now"),
    "nothing where a podTemplate says more of nodes": (
        {"podTemplate": {"spec": {"affinity": {}}}}, [LARGE], "a podTemplate has affinity",
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", OFFERS)
def test_the_memory_of_a_gpu_is_that_of(which):
    spec, nodes, expected = OFFERS[which]
    asked = plan_request(deployment(resource(**{"resources": ONE, **spec})))
    assert asks_nodes(asked)
    answer = answered(asked, Nodes(nodes))
    if isinstance(expected, int):
        assert (answer.known, answer.request.device.memory_bytes) == (True, expected * MIB)
    else:
        assert (answer.known, answer.request.device.memory_bytes) == (False, None)
        assert expected in answer.words
    assert replace(answer.request, device=asked.device) == asked, "it changes more than the memory"


NOBODY_IS_ASKED = {
    "a stage without GPU": {"resources": {"limits": {"memory": "8Gi"}}},
    "a stage that asks for nothing": {"resources": {}},
    "memory that the spec says": {"resources": {**ONE, "deviceMemory": "40Gi"}},
    "another device": {"resources": {"limits": {"amd.com/gpu": 1}}},
    "a stage that computes on its CPU": {
        "resources": ONE, "pipeline": {"stages": 2, "device": "cpu"},
    },
}  # fmt: skip


@pytest.mark.parametrize("which", NOBODY_IS_ASKED)
def test_nobody_is_asked_for(which):
    assert not asks_nodes(plan_request(deployment(resource(**NOBODY_IS_ASKED[which]))))


def test_each_override_has_nodes_of_its_own():
    spec = {
        "resources": ONE,
        "nodeSelector": {"tier": "a"},
        "stageOverrides": [
            {"stages": [1], "nodeSelector": {"tier": "b"}},
            {"stages": [2], "resources": {"deviceMemory": "10Gi"}},
        ],
    }
    answer = answered(plan_request(deployment(resource(**spec))), Nodes([SMALL, LARGE]))
    memory = [answer.request.device_of(stage).memory_bytes // MIB for stage in range(3)]
    assert memory == [24_576, 81_559, 10 * 1024]
    assert answer.words == "GPU memory is by label nvidia.com/gpu.memory of small, large"


def planned(one):
    told = one.condition("Planned")
    return told["reason"], told["message"]


def gpu_world(*nodes, **spec):
    one = World(**{"pipeline": {"stages": 2}, "resources": ONE, **spec})
    one.nodes = Nodes(nodes)
    return one


def test_a_plan_is_checked_against_the_smallest_node_and_says_so():
    one = gpu_world(SMALL, LARGE)
    one.settle()
    assert planned(one) == (
        "Planned",
        "6 layers on 2 stages, and every stage fits; GPU memory is by label nvidia.com/gpu.memory "
        "of small",
    )
    assert one.resource["status"]["plan"]["memoryChecked"]
    assert one.node_reads == 1, "nodes are read at planning, and then no more"


def test_the_fewest_stages_that_fit_are_those_of_the_nodes():
    few, many = gpu_world(gpu_node(memory=81_559), pipeline={}), gpu_world(
        gpu_node(memory=2_400), pipeline={}
    )  # fmt: skip
    few.settle()
    many.settle()
    assert len(few.stage_pods) == 1 < len(many.stage_pods)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        (Nodes(), "no node that fits offers 1 of nvidia.com/gpu now"),
        (Nodes(refused="nodes is forbidden"), "nodes may not be read: nodes is forbidden"),
    ],
)
def test_where_nothing_is_known_it_is_planned_without_and_said(nodes, why):
    one = gpu_world()
    one.nodes = nodes
    one.settle()
    assert planned(one) == (
        "PlannedWithoutMemory",
        "6 layers on 2 stages, not checked for memory, as that of stage 0 is not known "
        f"({why}): set spec.resources.deviceMemory",
    )
    assert one.condition("Ready")["status"] == "True"


def test_what_fits_no_node_is_refused_and_planned_when_a_larger_one_joins():
    one = gpu_world(gpu_node("tiny", 1_000))
    one.settle()
    reason, message = planned(one)
    assert reason == "PlanRefused"
    assert "its pods offer 1000 MiB" in message
    assert message.endswith("; GPU memory is by label nvidia.com/gpu.memory of tiny")
    assert not one.stage_pods
    assert one.decide().again <= 60, "nobody tells of a node that joins"
    one.nodes = Nodes([LARGE])
    one.settle()
    assert planned(one)[0] == "Planned"
    assert one.condition("Ready")["status"] == "True"


def test_a_node_that_joins_or_goes_moves_nothing_that_runs():
    one = gpu_world(LARGE)
    one.settle()
    before, reads = set(one.children[CONTROLLER_REVISION]), one.node_reads
    for nodes in ([LARGE, gpu_node("tiny", 1_000)], []):
        one.nodes = Nodes(nodes)
        assert not one.reconcile()
        one.change(replicas=2 if nodes else 1)
        one.settle()
    assert set(one.children[CONTROLLER_REVISION]) == before
    assert one.node_reads == reads
    one.change(image="worker:2")
    one.settle()
    assert planned(one)[1].endswith("of large"), "the plan goes on, and what it was made by"
    assert one.node_reads == reads


def test_other_nodes_are_asked_when_the_spec_asks_for_others():
    one = gpu_world(SMALL, LARGE, nodeSelector={"tier": "b"})
    one.settle()
    assert planned(one)[1].endswith("of large")
    one.change(nodeSelector={"tier": "a"})
    one.settle()
    assert planned(one)[1].endswith("of small")


def test_a_record_of_before_nodes_were_asked_is_not_written_again():
    one = World(pipeline={"stages": 2})
    one.settle()
    (record,) = one.children[CONTROLLER_REVISION].values()
    assert "devices" not in record["data"], "an API server refuses a change of its data"


async def test_nodes_are_listed_once_for_all_that_ask_within_a_minute(monkeypatch):
    cluster = MemoryCluster()
    cluster.put(LARGE)
    reader = NodeReader(cluster)
    read = await asyncio.gather(*(reader.read() for _ in range(20)))
    assert cluster.verbs() == {"list": 1}
    assert {node["metadata"]["name"] for nodes in read for node in nodes.items} == {"large"}
    monkeypatch.setattr("stageline_operator.nodes.KEPT_SECONDS", 0.0)
    other = NodeReader(cluster)
    await other.read()
    cluster.fault = lambda verb, subject: (
        Refused("nodes is forbidden") if subject == NODE.plural else None
    )
    assert (await other.read()).refused == "nodes is forbidden"
    cluster.fault = lambda verb, subject: None
    assert (await other.read()).items, "a right that was given is used without a restart"
