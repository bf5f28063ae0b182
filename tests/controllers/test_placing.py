"""Which pods fit a node, and Kubernetes' sentences when one does not."""

import pytest

from stageline_local.controllers.placing import obstacles, refusal, requests

NODE = {
    "metadata": {"name": "local", "labels": {"gpu": "a100"}},
    "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "3", "nvidia.com/gpu": "2"}},
}


def pod(limits=None, requests=None, phase="Running", **spec):
    container = {"resources": {"limits": limits or {}, "requests": requests or {}}}
    return {"spec": {"containers": [container], **spec}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("asked", "there", "expected"),
    [
        (pod(), [], []),
        (pod({"memory": "8Gi"}), [], []),
        (pod({"memory": "8Gi"}), [pod({"memory": "1"})], ["Insufficient memory"]),
        (pod({"memory": "16Gi"}, {"memory": "1Gi"}), [pod({"memory": "7Gi"})], []),
        (pod({"memory": "8Gi"}), [pod({"memory": "8Gi"}, phase="Succeeded")], []),
        (pod({"cpu": "4"}), [pod({"cpu": "4"}), pod({"cpu": "4"})], []),
        (pod({"cpu": "4500m"}), [], ["Insufficient cpu"]),
        (pod({"nvidia.com/gpu": "1"}), [pod({"nvidia.com/gpu": "1"})], []),
        (pod({"nvidia.com/gpu": 1}), [pod({"nvidia.com/gpu": 2})], ["Insufficient nvidia.com/gpu"]),
        (pod({"example.com/x": "1"}), [], ["Insufficient example.com/x"]),
        (pod({"example.com/x": "0"}), [], []),
        (
            pod({"memory": "9Gi", "nvidia.com/gpu": 3}),
            [],
            ["Insufficient memory", "Insufficient nvidia.com/gpu"],
        ),
        (pod(), [pod(), pod()], []),
        (pod(), [pod(), pod(), pod()], ["Too many pods"]),
        (pod(nodeSelector={"gpu": "a100"}), [], []),
        (
            pod(nodeSelector={"gpu": "h100"}),
            [],
            ["node(s) didn't match Pod's node affinity/selector"],
        ),
    ],
)  # fmt: skip
def test_obstacles(asked, there, expected):
    assert obstacles(asked, NODE, there) == expected


def test_requests_are_summed_over_containers():
    two = {"spec": {"containers": [{"resources": {"requests": {"memory": "1Gi"}}}] * 2}}
    assert requests(two) == {"memory": 2 << 30}


@pytest.mark.parametrize(
    ("by_node", "sentence"),
    [
        ([], "no nodes available to schedule pods"),
        (
            [["Insufficient nvidia.com/gpu"]],
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        ),
        (
            [["Insufficient memory", "Too many pods"], ["Insufficient memory"]],
            "0/2 nodes are available: 2 Insufficient memory, 1 Too many pods.",
        ),
    ],
)
def test_sentences(by_node, sentence):
    assert refusal(by_node) == sentence
