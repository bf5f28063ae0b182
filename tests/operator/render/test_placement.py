"""Where pods may run, with what, and for how long: nodes, threads, grace."""

import pytest

from support.rendered import container, document, env, labels_of, rendered
from support.specs import SPECS


def test_what_one_stage_has_differently_reaches_that_stage_alone():
    made = rendered(SPECS["everything"])
    first, last = made.stage(0), made.stage(2)
    assert first["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert last["spec"]["nodeSelector"] == {"pool": "gpu", "gpu": "a100"}
    assert "runtimeClassName" not in first["spec"]
    assert last["spec"]["runtimeClassName"] == "nvidia"
    assert first["spec"]["priorityClassName"] == last["spec"]["priorityClassName"] == "high"
    limits = [container(pod, "worker")["resources"]["limits"] for pod in (first, last)]
    assert limits == [{"memory": "8Gi"}, {"memory": "16Gi"}]
    assert {"key": "a100", "operator": "Exists"} in last["spec"]["tolerations"]
    assert {"key": "a100", "operator": "Exists"} not in first["spec"]["tolerations"]


def test_a_node_that_is_away_is_waited_for_a_minute_unless_the_spec_says_otherwise():
    waits = {
        entry["key"]: entry.get("tolerationSeconds")
        for entry in rendered(SPECS["everything"]).stage()["spec"]["tolerations"]
        if entry["key"].startswith("node.kubernetes.io/")
    }
    assert waits == {"node.kubernetes.io/unreachable": None, "node.kubernetes.io/not-ready": 60}


def test_a_router_leaves_a_node_that_is_away_as_soon_as_stages_do():
    made = rendered(SPECS["everything"])
    router = made.router()["spec"]["template"]["spec"]["tolerations"]
    assert [(entry["key"], entry["tolerationSeconds"]) for entry in router] == [
        ("node.kubernetes.io/not-ready", 60),
        ("node.kubernetes.io/unreachable", 60),
    ]


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        ("{requests: {cpu: 250m}}", "1"),
        ("{requests: {cpu: 250m}, limits: {cpu: 2500m}}", "3"),
        ("{requests: {cpu: '4'}}", "4"),
        ("{limits: {memory: 64Gi}}", None),
    ],
)
def test_a_stage_computes_with_as_many_threads_as_it_was_given_cpus(resources, threads):
    assert env(rendered(f"{{resources: {resources}}}").worker()).get("OMP_NUM_THREADS") == threads


def test_a_stage_may_drain_for_as_long_as_its_pod_may_take_to_end():
    long = "{spec: {terminationGracePeriodSeconds: 600}}"
    made = rendered(f"{{podTemplate: {long}, router: {{podTemplate: {long}}}}}")
    assert made.stage()["spec"]["terminationGracePeriodSeconds"] == 600
    assert env(made.worker())["STAGELINE_GRACE_SECONDS"] == "595"
    assert document(made).drain_seconds == 595
    assert env(rendered().worker())["STAGELINE_GRACE_SECONDS"] == "25"


def test_leaders_are_spread_over_hosts_unless_the_spec_says_otherwise():
    made = rendered("{pipeline: {stages: 2}}")
    (spread,) = made.stage(0)["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"]["matchLabels"].items() <= labels_of(made.stage(0)).items()
    assert not spread["labelSelector"]["matchLabels"].items() <= labels_of(made.stage(1)).items()
    assert made.stage(1)["spec"]["topologySpreadConstraints"] == []
    (own,) = rendered(SPECS["everything"]).stage(1)["spec"]["topologySpreadConstraints"]
    assert (own["topologyKey"], own["maxSkew"]) == ("zone", 1)
    assert own["labelSelector"]["matchLabels"].items() <= labels_of(made.stage(1)).items()
