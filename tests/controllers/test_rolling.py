"""Deployments: exact steps, and what holds on every way to the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_local.controllers.rolling import (
    HASH_LABEL,
    deployment_status,
    is_ready,
    new_pod,
    next_step,
    template_hash,
)

NOW = "2026-01-02T03:04:05Z"


def deployment(replicas=4, image="new", name="router", **strategy):
    spec = {
        "replicas": replicas,
        "template": {
            "metadata": {"labels": {"app": "r"}, "annotations": {"note": "hi"}},
            "spec": {"containers": [{"image": image}]},
        },
    }
    if strategy:
        kind = strategy.pop("type", "RollingUpdate")
        spec["strategy"] = {"type": kind, **({"rollingUpdate": strategy} if strategy else {})}
    metadata = {"name": name, "namespace": "ns", "uid": "u", "generation": 3}
    return {"metadata": metadata, "spec": spec}


NEW = template_hash(deployment())
OLD = template_hash(deployment(image="old"))


def pods(text):
    """One letter a pod: N new and ready, n new and not, O and o old, X ended, L an old leaving."""
    return [
        {
            "metadata": {
                "name": f"{letter}{number}",
                "labels": {HASH_LABEL: NEW if letter in "Nn" else OLD},
                **({"deletionTimestamp": "t"} if letter == "L" else {}),
            },
            "spec": {"nodeName": "local"},
            "status": {
                "phase": "Failed" if letter == "X" else "Running",
                "conditions": [{"type": "Ready", "status": str(letter.isupper())}],
            },
        }
        for number, letter in enumerate(text)
    ]


@pytest.mark.parametrize(
    ("strategy", "there", "create", "delete"),
    [
        ({}, "", 4, ""),
        ({}, "NNNN", 0, ""),
        ({}, "NN", 2, ""),
        ({}, "NNNNnN", 0, "n4 N0"),
        ({}, "NNNX", 1, "X3"),
        ({}, "NNNL", 1, ""),
        # 25 % of 4: one more, one fewer
        ({}, "OOOO", 1, "O0"),
        ({}, "OOOn", 1, ""),
        ({}, "OOON", 1, "O0"),
        ({}, "OOoo", 1, "o2"),
        ({}, "oooo", 1, "o0"),
        ({}, "ONNNn", 0, "O0"),
        ({}, "NNNNO", 0, "O4"),
        ({"maxSurge": 1, "maxUnavailable": 0}, "OOOO", 1, ""),
        ({"maxSurge": 1, "maxUnavailable": 0}, "OOOOn", 0, ""),
        ({"maxSurge": 1, "maxUnavailable": 0}, "OOOON", 0, "O0"),
        ({"maxSurge": 0, "maxUnavailable": 1}, "OOOO", 0, "O0"),
        ({"maxSurge": 0, "maxUnavailable": 1}, "OOO", 1, ""),
        ({"maxSurge": 0, "maxUnavailable": 0}, "OOOO", 0, "O0"),
        ({"maxSurge": "100%", "maxUnavailable": 0}, "OOOO", 4, ""),
        ({"type": "Recreate"}, "OOOO", 0, "O0 O1 O2 O3"),
        ({"type": "Recreate"}, "L", 0, ""),
        ({"type": "Recreate"}, "", 4, ""),
    ],
)
def test_steps(strategy, there, create, delete):
    step = next_step(deployment(**strategy), pods(there))
    assert (step.create, sorted(step.delete)) == (create, sorted(delete.split()))


@pytest.mark.parametrize(
    ("replicas", "surge", "create"), [(1, "25%", 1), (5, "25%", 2), (3, "34%", 2), (2, 1, 1)]
)
def test_surge_is_rounded_up(replicas, surge, create):
    step = next_step(deployment(replicas, maxSurge=surge, maxUnavailable=0), pods("O" * replicas))
    assert (step.create, step.delete) == (create, ())


def test_unavailable_is_rounded_down():
    step = next_step(deployment(7, maxSurge=1, maxUnavailable="25%"), pods("O" * 7))
    assert len(step.delete) == 1


@given(
    replicas=st.integers(0, 9),
    surge=st.integers(0, 9),
    unavailable=st.integers(0, 9),
    there=st.text("NnOoX", max_size=18),
)
def test_every_rollout_ends_within_its_limits(replicas, surge, unavailable, there):
    """Every pod that is made comes to be ready; old ones that are not stay so."""
    wanted = deployment(replicas, maxSurge=surge, maxUnavailable=unavailable)
    least = replicas - (unavailable or (surge == 0))
    now = there
    for _ in range(60):
        before = sum(letter in "NO" for letter in now)
        step = next_step(wanted, pods(now))
        gone = {int(name[1:]) for name in step.delete}
        left = "".join(letter for number, letter in enumerate(now) if number not in gone)
        ready = sum(letter in "NO" for letter in left)
        assert ready >= min(before, least), f"{now}: {step} takes away too much"
        alive = sum(letter != "X" for letter in now)
        assert step.create == 0 or alive + step.create <= replicas + surge, f"{now}: {step}"
        if not (step.create or step.delete or "n" in now):
            break
        now = (left + "n" * step.create).replace("n", "N")
    assert now == "N" * replicas


def test_pod_of_a_template():
    pod = new_pod(deployment(name="x" * 60), "bcdfg")
    assert pod["metadata"]["name"] == f"{'x' * 46}-{NEW}-bcdfg"
    assert len(pod["metadata"]["name"]) == 63
    assert pod["metadata"]["labels"] == {"app": "r", HASH_LABEL: NEW}
    assert pod["metadata"]["annotations"] == {"note": "hi"}
    (owner,) = pod["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Deployment", "u", True)


def test_hash_is_of_the_template_alone():
    assert template_hash(deployment(replicas=9, name="other")) == NEW
    assert OLD != NEW


@pytest.mark.parametrize(
    ("there", "counts", "available", "progressing"),
    [
        ("NNNN", (4, 4, 4, 0), "True", "NewReplicaSetAvailable"),
        ("NNNn", (4, 4, 3, 1), "True", "ReplicaSetUpdated"),
        ("NNnn", (4, 4, 2, 2), "False", "ReplicaSetUpdated"),
        ("OOON", (4, 1, 4, 0), "True", "ReplicaSetUpdated"),
        ("", (0, 0, 0, 4), "False", "ReplicaSetUpdated"),
    ],
)
def test_status(there, counts, available, progressing):
    status = deployment_status(deployment(), pods(there), NOW)
    names = ("replicas", "updatedReplicas", "readyReplicas", "unavailableReplicas")
    assert tuple(status[name] for name in names) == counts
    assert status["availableReplicas"] == status["readyReplicas"]
    assert status["observedGeneration"] == 3
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert conditions["Available"]["status"] == available
    assert conditions["Progressing"]["reason"] == progressing


def test_times_move_only_with_what_they_tell():
    first = deployment_status(deployment(), pods("NNnn"), NOW)
    again = {**deployment(), "status": first}
    later = deployment_status(again, pods("NNNn"), "later")
    available, progressing = later["conditions"]
    assert (available["lastTransitionTime"], available["lastUpdateTime"]) == ("later", "later")
    assert (progressing["lastTransitionTime"], progressing["lastUpdateTime"]) == (NOW, NOW)


def test_pods_that_say_nothing_are_not_ready():
    assert not is_ready({"metadata": {}})
