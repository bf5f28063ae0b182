"""Pod status by tables: what kubectl shows follows from it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stageline_local.kubelet.status import ContainerView, container_status, pod_status
from stageline_local.process import Life, Observation, Phase

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(seconds=60)
POD = {"metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 4}, "spec": {}}
LIFE = Life(NOW - timedelta(seconds=9), NOW)
SEEN = Observation("u/c")
RUNNING = replace(SEEN, phase=Phase.RUNNING, pid=7, started=NOW)
RESTARTED = replace(RUNNING, restarts=1, exit_code=137, last=LIFE)
BACK_OFF = replace(SEEN, restarts=3, exit_code=1, last=LIFE, delay=2.0)
DONE = replace(SEEN, phase=Phase.ENDED, exit_code=0, last=LIFE)
FAILED = replace(DONE, exit_code=3)


def view(process, **fields):
    return ContainerView("c", "image", process, **fields)


def status(*views, pod=POD, now=NOW):
    return pod_status(pod, "127.9.9.9", views, now, NOW)


def condition(status, kind):
    return next(c for c in status["conditions"] if c["type"] == kind)


@pytest.mark.parametrize(
    ("views", "phase"),
    [
        ([view(SEEN)], "Pending"),
        ([view(SEEN, refused="no")], "Pending"),
        ([view(RUNNING), view(SEEN)], "Pending"),
        ([view(RUNNING)], "Running"),
        ([view(BACK_OFF)], "Running"),
        ([view(DONE), view(RUNNING)], "Running"),
        ([view(DONE)], "Succeeded"),
        ([view(DONE), view(FAILED)], "Failed"),
    ],
)
def test_phase(views, phase):
    assert status(*views)["phase"] == phase


@pytest.mark.parametrize(
    ("container", "state"),
    [
        (view(SEEN), {"waiting": {"reason": "ContainerCreating"}}),
        (
            view(SEEN, refused='configmap "x" not found'),
            {
                "waiting": {
                    "reason": "CreateContainerConfigError",
                    "message": 'configmap "x" not found',
                }
            },
        ),
        (view(RESTARTED), {"running": {"startedAt": "2026-01-02T03:04:05Z"}}),
        (
            view(BACK_OFF),
            {
                "waiting": {
                    "reason": "CrashLoopBackOff",
                    "message": "back-off 2s restarting failed container=c pod=p_ns(u)",
                }
            },
        ),
        (
            view(FAILED, message="the sentence"),
            {
                "terminated": {
                    "exitCode": 3,
                    "reason": "Error",
                    "message": "the sentence",
                    "startedAt": "2026-01-02T03:03:56Z",
                    "finishedAt": "2026-01-02T03:04:05Z",
                }
            },
        ),
    ],
)
def test_state(container, state):
    assert container_status(POD, container)["state"] == state


def test_killed_and_restarted_tells_the_life_before():
    seen = container_status(POD, view(RESTARTED, message="m"))
    assert seen["restartCount"] == 1
    last = seen["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (137, "Error", "m")
    assert container_status(POD, view(RUNNING))["lastState"] == {}


@pytest.mark.parametrize(
    ("views", "ready", "reason"),
    [
        ([view(RUNNING, ready=True)], "True", None),
        ([view(RUNNING)], "False", "ContainersNotReady"),
        ([view(BACK_OFF, ready=True)], "False", "ContainersNotReady"),
        ([view(DONE)], "False", "PodCompleted"),
        ([view(FAILED)], "False", "PodFailed"),
    ],
)
def test_ready(views, ready, reason):
    seen = status(*views)
    for kind in ("Ready", "ContainersReady"):
        assert condition(seen, kind)["status"] == ready
        assert condition(seen, kind).get("reason") == reason


def test_unready_containers_are_named():
    other = replace(view(RUNNING), name="d")
    message = condition(status(view(RUNNING, ready=True), other), "Ready")["message"]
    assert message == "containers with unready status: [d]"


def test_conditions_keep_their_time_and_those_of_others():
    foreign = {"type": "DisruptionTarget", "status": "True"}
    first = status(view(RUNNING))
    pod = {**POD, "status": {"conditions": [*first["conditions"], foreign]}}
    second = status(view(RUNNING, ready=True), pod=pod, now=LATER)
    assert foreign in second["conditions"]
    assert condition(second, "Initialized")["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert condition(second, "Ready")["lastTransitionTime"] == "2026-01-02T03:05:05Z"


def test_addresses_and_generation():
    seen = status(view(RUNNING))
    assert (seen["podIP"], seen["hostIP"], seen["observedGeneration"]) == (
        "127.9.9.9",
        "127.0.0.1",
        4,
    )
