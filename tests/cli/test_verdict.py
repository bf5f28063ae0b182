"""When `stageline up` gives a resource up that was never ready."""

import pytest

from stageline_cli.verdict import hopeless
from stageline_operator.labels import COMPONENT
from support.resources import conditions, resource


def pod(component, restarts=0, **states):
    """A pod with one container; state=("waiting" or "terminated", content)."""
    status = {"restartCount": restarts}
    status |= {field: dict([content]) for field, content in states.items()}
    return {
        "metadata": {"name": f"llama-{component}", "labels": {COMPONENT: component}},
        "status": {"containerStatuses": [status]},
    }


def ended(code, message=""):
    return ("terminated", {"exitCode": code, "message": message})


BACK_OFF = ("waiting", {"reason": "CrashLoopBackOff"})


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (pod("stage"), None),
        (pod("stage", 2, state=BACK_OFF, lastState=ended(1, "no disk")), None),
        (
            pod("stage", 3, state=BACK_OFF, lastState=ended(1, "no disk")),
            "llama-stage died 3 times before it was up: no disk",
        ),
        (
            pod("router", 4, state=ended(137), lastState=ended(1, "an older one")),
            "llama-router died 4 times before it was up: exit code 137",
        ),
        (pod("profile", state=ended(1, "no config.json")), "no config.json"),
        (pod("profile", 1, state=BACK_OFF, lastState=ended(2, "no such file")), "no such file"),
        (pod("profile", state=ended(0, "eJw=")), None),
        (pod("profile", 1, lastState=ended(137)), None),
        (pod("profile", 3, lastState=ended(137)), "llama-profile died 3 times .* exit code 137"),
        ({"metadata": {"name": "new"}}, None),
    ],
)
def test_pods(one, sentence):
    why = hopeless(resource(conditions=[]), [pod("stage"), one])
    assert why == sentence or (sentence and ".*" in sentence and "exit code 137" in why)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({}, None),
        ({"Stalled": ("True", "PlanRefused", "too few layers")}, "too few layers"),
        (
            {"Stalled": ("True", "Spec", ""), "Ready": ("False", "Spec", "spec.x is wrong")},
            "spec.x is wrong",
        ),
        ({"Ready": ("False", "StageLoading", "in time")}, None),
    ],
)
def test_conditions(told, sentence):
    assert hopeless(resource(conditions=conditions(**told)), []) == sentence
