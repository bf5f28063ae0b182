"""What the chart renders, with values as people set them."""

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from stageline_operator.settings import OperatorSettings, parse
from support.chart import CHART, NAMESPACE, helm, named, of_kind, rendered
from support.podsecurity import restricted
from support.rendered import rendered as pipeline

ROOT = CHART.parents[1]
VALUES = {
    "defaults": {},
    "namespaces": {"namespaces": ["models", "more-models"]},
    "registry": {
        "images": {
            "registry": "registry.example.com:5000/team/",
            "tag": "v1",
            "pullSecrets": [{"name": "pull"}],
        }
    },
    "everything": {
        "operator": {
            "workers": 2,
            "log": {"format": "text", "level": "debug"},
            "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "control", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "system-cluster-critical",
        },
        "clusterDomain": "example.internal",
        "allowHostPath": True,
        "networkPolicy": {
            "apiServerPorts": [16443],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"monitoring": "yes"}}}],
            "pipelineNamespaces": ["models"],
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "nothing": {
        "rbac": {"aggregate": False, "nodes": False},
        "networkPolicy": {"enabled": False},
    },
}
values = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)


def settings(values):
    """What the operator makes of the arguments that the chart gives it."""
    return parse(container(values)["args"], {})


def container(values):
    (only,) = named("Deployment", "stageline", values)["spec"]["template"]["spec"]["containers"]
    return only


@values
def test_every_object_is_valid(values):
    for obj in rendered(values):
        if obj["kind"] != "ServiceMonitor":  # the Prometheus Operator's
            kubernetes_validate.validate(obj, "1.37", strict=True)


@values
def test_every_pod_passes_the_restricted_level_and_writes_to_its_volumes_alone(values):
    pods = [*of_kind("Pod", values), named("Deployment", "stageline", values)["spec"]["template"]]
    assert len(pods) == 2
    for pod in pods:
        assert restricted(pod) == []
        for each in pod["spec"]["containers"]:
            assert each["securityContext"]["readOnlyRootFilesystem"] is True
            assert each["resources"]["requests"], f"container {each['name']} requests nothing"


@values
def test_helm_finds_nothing_to_say(values):
    told = helm("lint", "--strict", str(CHART), values=values)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "[WARNING]" not in told.stdout


@pytest.mark.parametrize(
    ("values", "about"),
    [
        ({"namespace": "models"}, "namespace"),
        ({"namespaces": ["Models"]}, "namespaces/0"),
        ({"images": {"tag": "a b"}}, "images/tag"),
        ({"images": {"pullPolicy": "Sometimes"}}, "images/pullPolicy"),
        ({"operator": {"workers": 0}}, "operator/workers"),
        ({"operator": {"log": {"level": "loud"}}}, "operator/log/level"),
        ({"allowHostPath": "yes"}, "allowHostPath"),
        ({"networkPolicy": {"apiServerPorts": []}}, "networkPolicy/apiServerPorts"),
        ({"serviceMonitor": {"interval": "often"}}, "serviceMonitor/interval"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(values, about):
    told = helm("template", "stageline", str(CHART), values=values)
    assert told.returncode != 0, f"{values} was taken"
    assert about in told.stderr


def test_the_operator_understands_its_arguments():
    plain, full = settings({}), settings(VALUES["everything"])
    assert plain.render.worker_image == "stageline-worker:0.1.0.dev0"
    bare = OperatorSettings(log_format="json", release=f"{NAMESPACE}/stageline")
    assert replace(plain, render=bare.render) == bare, "the chart has other defaults"
    assert plain.render.allow_host_path is False
    assert settings(VALUES["namespaces"]).namespaces == ("models", "more-models")
    assert full.render.cluster_domain == "example.internal"
    assert full.render.allow_host_path is True
    assert (full.workers, full.log_format, full.log_level) == (2, "text", "debug")


def test_images_come_from_the_registry_with_its_tag():
    from_registry = VALUES["registry"]
    render = settings(from_registry).render
    assert (
        container(from_registry)["image"] == "registry.example.com:5000/team/stageline-operator:v1"
    )
    assert render.worker_image == "registry.example.com:5000/team/stageline-worker:v1"
    assert render.router_image == "registry.example.com:5000/team/stageline-router:v1"


def test_probes_and_metrics_go_where_the_operator_answers():
    (port,) = container({})["ports"]
    assert port["containerPort"] == OperatorSettings().health_port
    probes = {name: probe["httpGet"] for name, probe in container({}).items() if "Probe" in name}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert probes["readinessProbe"]["path"] == "/readyz"
    assert probes["livenessProbe"]["path"] == probes["startupProbe"]["path"] == "/healthz"
    (service,) = of_kind("Service")
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    labels = named("Deployment", "stageline")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_prometheus_finds_the_metrics():
    values = VALUES["everything"]
    (monitor,), (service,) = of_kind("ServiceMonitor", values), of_kind("Service", values)
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"


def test_two_operators_never_work_at_the_same_time():
    spec = named("Deployment", "stageline")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_namespaced_operator_may_only_look_at_what_is_in_no_namespace_of_its_own():
    cluster = named("ClusterRole", "stageline", VALUES["namespaces"])
    everywhere = [rule for rule in cluster["rules"] if "resourceNames" not in rule]
    assert {verb for rule in everywhere for verb in rule["verbs"]} == {"list", "watch"}
    (named_alone,) = (rule for rule in cluster["rules"] if "resourceNames" in rule)
    assert named_alone["resourceNames"] == ["pipelinedeployments.stageline.dev"]
    assert named_alone["verbs"] == ["get"]
    assert {r for rule in cluster["rules"] for r in rule["resources"]} == {
        "namespaces", "customresourcedefinitions", "nodes",
    }  # fmt: skip
    roles = of_kind("Role", VALUES["namespaces"])
    assert [role["metadata"]["namespace"] for role in roles] == ["models", "more-models"]
    assert of_kind("Role") == []


def test_policies_are_for_the_pods_that_there_are():
    made, policies = pipeline(namespace="models"), {}
    for policy in of_kind("NetworkPolicy", VALUES["namespaces"]):
        if policy["metadata"]["namespace"] != "more-models":
            policies[policy["metadata"]["name"]] = policy["spec"]
    stage, profile = made.stage()["metadata"], made.profile()["metadata"]
    router = made.router()["spec"]["template"]["metadata"]
    operator = named("Deployment", "stageline")["spec"]["template"]["metadata"]
    assert chosen(policies["stageline-stages"]["podSelector"], stage, router, profile) == [stage]
    assert chosen(policies["stageline-profiles"]["podSelector"], stage, router, profile) == [
        profile
    ]
    assert chosen(policies["stageline"]["podSelector"], stage, operator) == [operator]
    callers, links = policies["stageline-stages"]["ingress"]
    near, far = callers["from"]
    everybody = stage, router, profile, operator
    assert chosen(near["podSelector"], *everybody) == [stage, router]
    assert chosen(far["podSelector"], *everybody) == [operator]
    leaders = policies["stageline"]["egress"][-1]
    assert chosen(leaders["to"][0]["podSelector"], *everybody) == [stage]
    ports = {port["name"]: port["containerPort"] for port in made.worker()["ports"]}
    assert leaders["ports"] == callers["ports"] == [{"port": ports["grpc"], "protocol": "TCP"}]
    assert links["ports"] == [{"port": ports["links"], "protocol": "TCP"}]
    assert chosen(links["from"][0]["podSelector"], *everybody) == [stage]


def chosen(selector, *pods):
    """Those of the metadata that a label selector means."""

    def fits(labels):
        wanted = selector.get("matchLabels", {})
        among = {entry["key"]: entry["values"] for entry in selector.get("matchExpressions", ())}
        return wanted.items() <= labels.items() and all(
            labels.get(key) in allowed for key, allowed in among.items()
        )

    return [pod for pod in pods if fits(pod["labels"])]


def test_users_of_a_namespace_may_do_with_its_resources_what_they_may_do_with_others():
    roles = {role["metadata"]["name"]: role for role in of_kind("ClusterRole")}
    assert (
        "rbac.authorization.k8s.io/aggregate-to-edit"
        in roles["stageline-edit"]["metadata"]["labels"]
    )
    assert set(roles) == {"stageline", "stageline-view", "stageline-edit"}
    assert len(of_kind("ClusterRole", VALUES["nothing"])) == 1


@pytest.mark.parametrize("namespaces", [[], ["models"]], ids=["all", "some"])
@pytest.mark.parametrize("nodes", [True, False])
def test_nodes_may_be_listed_where_the_values_say_so_and_never_more(namespaces, nodes):
    given = {"namespaces": namespaces, "rbac": {"nodes": nodes}}
    rules = next(
        role["rules"] for role in of_kind("ClusterRole", given)
        if role["metadata"]["name"] == "stageline"
    )  # fmt: skip
    verbs = [rule["verbs"] for rule in rules if "nodes" in rule["resources"]]
    assert verbs == ([["list"]] if nodes else [])


def test_every_object_is_named_after_the_release():
    told = helm("template", "x" * 53, str(CHART), "--namespace", "anywhere")
    assert told.returncode == 0, told.stderr
    names = [obj["metadata"]["name"] for obj in yaml.safe_load_all(told.stdout)]
    assert all(name.startswith("x" * 50) and len(name) <= 63 for name in names), names


def test_the_charts_version_is_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == project["version"]


def test_what_is_generated_from_the_chart_is_current():
    helm("version")
    told = subprocess.run(
        [sys.executable, "scripts/gen_manifests.py", "--check"], cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "left out" not in told.stdout


def test_a_chart_that_has_moved_on_is_noticed(tmp_path):
    helm("version")
    for name in ("scripts/gen_manifests.py", "manifests/crd.yaml", "manifests/install.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for source in (path for path in CHART.rglob("*") if path.is_file()):
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    script = tmp_path / "scripts" / "gen_manifests.py"
    assert checked(script) == ""
    config = tmp_path / "charts" / "stageline" / "values.yaml"
    config.write_text(config.read_text().replace("workers: 32", "workers: 9"))
    assert checked(script).strip() == (
        "manifests/install.yaml is not current: run `make manifests` and commit"
    )
    (tmp_path / "manifests" / "crd.yaml").write_text(json.dumps({}))
    assert "charts/stageline/crds/pipelinedeployments.yaml is not current" in checked(script)


def checked(script: Path) -> str:
    return subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, check=False
    ).stderr
