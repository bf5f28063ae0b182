"""One pod, as Kubernetes tells of it in a dozen places, becomes one state and one sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_operator.messages import clean
from stageline_operator.observed import PodKey
from stageline_operator.truth import CRASHES, pod_truth
from support.objects import crashing, ended, pod, truth, unschedulable, waiting

TABLE = [
    # what, pod, state, reason, words of the message
    ("ready", pod(), "Loaded", "", ""),
    ("running", pod(ready=False), "Starting", "", "not ready yet"),
    (
        "running again",
        pod(ready=False, restarts=1, container={"lastState": ended(137, "loaded stage=1")}),
        "Starting",
        "",
        "it is not ready yet: it was started again after exit code 137, killed by SIGKILL",
    ),
    ("no node yet", pod(ready=False, node="", conditions=[]), "Pending", "", "scheduler"),
    ("no node fits", unschedulable(PodKey("a", 0, 0)), "Pending", "Unschedulable", "3 too small"),
    (
        "gated",
        pod(
            ready=False,
            node="",
            conditions=[
                {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"},
            ],
        ),
        "Pending",
        "SchedulingGated",
        "no node fits it",
    ),
    (
        "creating",
        pod(ready=False, phase="Pending", container=waiting("ContainerCreating")),
        "Pending",
        "",
        "volumes",
    ),
    (
        "pull failed",
        pod(ready=False, container=waiting("ErrImagePull", "worker:1: not found")),
        "Pending",
        "ImagePullBackOff",
        "worker:1: not found",
    ),
    (
        "pull backs off",
        pod(
            ready=False,
            container=waiting(
                "ImagePullBackOff",
                'Back-off pulling image "worker:1": ErrImagePull: worker:1: not found',
            ),
        ),
        "Pending",
        "ImagePullBackOff",
        "worker:1: not found",
    ),
    (
        "pull backs off, on an old kubelet",
        pod(ready=False, container=waiting("ImagePullBackOff", "Back-off pulling image")),
        "Pending",
        "ImagePullBackOff",
        "worker:1 cannot be pulled",
    ),
    (
        "no such image name",
        pod(ready=False, container=waiting("InvalidImageName", "cannot parse W:1")),
        "Pending",
        "InvalidImageName",
        "cannot parse W:1",
    ),
    (
        "no Secret",
        pod(ready=False, container=waiting("CreateContainerConfigError", 'secret "hf" not found')),
        "Pending",
        "CreateContainerConfigError",
        'secret "hf" not found',
    ),
    (
        "crashes",
        pod(ready=False, container=crashing("loading\nstage 1: no such tensor: w\n\n")),
        "Failed",
        "CrashLoopBackOff",
        "exit code 1: stage 1: no such tensor: w",
    ),
    (
        "crashed, not started again yet",
        pod(ready=False, container={"ready": False, "state": ended(3, "cannot download x")}),
        "Failed",
        "Error",
        "exit code 3: cannot download x",
    ),
    (
        "killed from outside",
        pod(ready=False, container={"ready": False, "state": ended(137, "loaded stage=1")}),
        "Failed",
        "Error",
        "exit code 137, killed by SIGKILL (by hand, by its kubelet, or for want of memory)",
    ),
    (
        "out of memory",
        pod(ready=False, container=crashing("", 137, "OOMKilled")),
        "Failed",
        "OOMKilled",
        "more memory than its limit",
    ),
    (
        "evicted",
        pod(ready=False, phase="Failed", reason="Evicted", message="The node was low on memory"),
        "Failed",
        "Evicted",
        "The node was low on memory",
    ),
    (
        "failed as a whole",
        pod(ready=False, phase="Failed", container={"state": ended(2, "no\nGPU")}),
        "Failed",
        "Error",
        "exit code 2: GPU",
    ),
    (
        "ended",
        pod(ready=False, phase="Succeeded"),
        "Failed",
        "Completed",
        "though they should run",
    ),
    ("node lost", pod(ready=False, phase="Unknown"), "Failed", "NodeLost", "node-1 does not"),
    ("deleted", pod(deleted=30), "Draining", "Terminating", "being deleted"),
    (
        "evicted by its node's taint",
        pod(
            deleted=30,
            conditions=[
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByTaintManager",
                    "message": "Taint manager: deleting due to NoExecute taint",
                }
            ],
        ),
        "Draining",
        "DeletionByTaintManager",
        "NoExecute",
    ),
    (
        "a sidecar's image cannot be pulled",
        pod(
            ready=False,
            initContainerStatuses=[{"name": "proxy", **waiting("ErrImagePull", "proxy: denied")}],
        ),
        "Pending",
        "ImagePullBackOff",
        "proxy: denied",
    ),
]


@pytest.mark.parametrize(
    ("found", "state", "reason", "words"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_what_a_pod_says(found, state, reason, words):
    told = pod_truth(found)
    assert (told.state, told.reason) == (state, reason)
    assert words in told.message, f"{words!r} is not in {told.message!r}"
    assert told.ready is (state == "Loaded")


def test_a_pod_is_replaced_only_when_it_will_not_come_back_by_itself():
    crashed = {
        restarts: truth(ready=False, container=crashing(), restarts=restarts).failed
        for restarts in (1, CRASHES - 1, CRASHES)
    }
    assert crashed == {1: False, CRASHES - 1: False, CRASHES: True}
    for phase in ("Failed", "Succeeded", "Unknown"):
        assert truth(ready=False, phase=phase).failed, f"a pod in phase {phase} never runs again"
    assert not truth(ready=False, container=waiting("ErrImagePull")).failed, (
        "another pod would not get the image either"
    )
    assert not truth(phase="Failed", deleted=5).failed, "it is on its way out already"


def test_a_profile_that_ended_is_what_was_asked_for():
    found = pod(ready=False, phase="Succeeded")
    found["spec"]["restartPolicy"] = "OnFailure"
    assert not pod_truth(found).failed


def test_where_it_runs_and_how_often_it_was_restarted():
    told = truth(restarts=3)
    assert (told.node, told.ip, told.restarts) == ("node-1", "10.0.0.1", 3)


def test_a_pod_without_a_status_waits():
    told = pod_truth({"metadata": {"name": "p"}, "spec": {}})
    assert (told.state, told.ready, told.failed) == ("Pending", False, False)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("get https://user:hunter2@hub.io/x failed", "hunter2"),
        ("https://s3/x?X-Amz-Signature=abc123def&a=1", "abc123def"),
        ("https://hub/x?token=abc123&part=2", "abc123"),
        ("HF_TOKEN=hf_abcdefghijkl was refused", "hf_abcdefghijkl"),
        ("the token hf_abcdefghijkl was refused", "hf_abcdefghijkl"),
        ("Authorization: Bearer abcdefgh.ijkl", "abcdefgh.ijkl"),
        ("password: swordfish", "swordfish"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI", "wJalrXUtnFEMI"),
    ],
)
def test_credentials_are_cut(text, hidden):
    told = clean(text)
    assert hidden not in told
    assert "***" in told


@pytest.mark.parametrize(
    "text",
    [
        "pull hub.io/worker@sha256:0123 failed: see https://hub.io/worker?tag=1",
        "the tokenizer: 3 tokens are missing",
        "stage 1 needs 37.9 GiB but its device has 24 GiB: use more stages",
    ],
)
def test_other_words_are_left_alone(text):
    assert clean(text) == text


@given(st.text(max_size=3000), st.integers(1, 200))
def test_a_message_is_one_line_and_bounded(text, limit):
    told = clean(text, limit)
    assert len(told) <= limit
    assert len(told.splitlines()) <= 1
