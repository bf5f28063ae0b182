"""The same requests to a real kube-apiserver and to ours have the same answers."""

import time
from typing import Any, NamedTuple

import pytest

from stageline_api.crd import crd
from stageline_local.apiserver import served
from support.apiserver import (
    APPLY,
    CORE,
    DEPLOYMENTS,
    JSON,
    JSON_PATCH,
    MERGE,
    PIPELINES,
    STRATEGIC,
    ask,
    config_map,
    deployment,
    normal,
    pipeline,
    pod,
)
from support.kube import ASSETS, NOT_HERE, RealServer

pytestmark = [
    pytest.mark.skipif(not ASSETS, reason=NOT_HERE),
    pytest.mark.timeout(120),
]


class Step(NamedTuple):
    method: str
    path: str
    body: Any = None
    content_type: str = JSON
    accept: str = JSON
    only_code: bool = False


def _condition(kind: str, status: str = "True") -> dict[str, str]:
    when = "2026-01-01T00:00:00Z"
    return {
        "type": kind,
        "status": status,
        "reason": "Good",
        "lastTransitionTime": when,
        "message": "",
    }


def _applied(kind: dict[str, Any], name: str, **parts: Any) -> dict[str, Any]:
    return {
        "apiVersion": kind["apiVersion"],
        "kind": kind["kind"],
        "metadata": {"name": name},
        **parts,
    }


PD, DEP, CM = pipeline(), deployment(), config_map()
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "s"},
    "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]},
}
BUDGET = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "b"},
    "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}},
}
REVISION = {
    "apiVersion": "apps/v1",
    "kind": "ControllerRevision",
    "metadata": {"name": "r"},
    "revision": 1,
    "data": {"a": 1},
}
EVENT = {
    "apiVersion": "events.k8s.io/v1",
    "kind": "Event",
    "metadata": {"name": "e"},
    "eventTime": "2026-01-01T00:00:00.000000Z",
    "reportingController": "stageline.dev/operator",
    "reportingInstance": "operator-0",
    "action": "Plan",
    "reason": "Planned",
    "type": "Normal",
    "note": "planned",
    "regarding": {"kind": "Pod", "name": "q", "namespace": "default", "apiVersion": "v1"},
}
OWNERS = [
    {"apiVersion": "v1", "kind": "X", "name": name, "uid": name, "controller": True}
    for name in "ab"
]
REVISIONS = "/apis/apps/v1/namespaces/default/controllerrevisions"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
NODE = {
    "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/worker": ""}},
    "spec": {"unschedulable": True},
}
STATUS = {
    "phase": "Running",
    "podIP": "10.1.2.3",
    "containerStatuses": [
        {
            "name": "c",
            "image": "busybox:1",
            "imageID": "",
            "ready": False,
            "restartCount": 3,
            "lastState": {},
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        }
    ],
}
PATHS = (f"{CORE}/pods", f"{CORE}/services", f"{CORE}/configmaps", DEPLOYMENTS, PIPELINES)


def _shown(path: str) -> Step:
    return Step("GET", path, None, JSON, TABLE)


STEPS = {
    "tables": [
        Step("POST", "/api/v1/nodes", NODE, only_code=True),
        Step("POST", f"{CORE}/pods", pod("shown", "n1")),
        Step("PATCH", f"{CORE}/pods/shown/status", {"status": STATUS}, MERGE),
        Step("POST", f"{CORE}/services", {**SERVICE, "metadata": {"name": "shown"}}),
        Step("POST", f"{CORE}/configmaps", config_map("shown", a="1", b="2")),
        Step("POST", DEPLOYMENTS, deployment("shown")),
        Step("POST", PIPELINES, pipeline("shown")),
        Step(
            "PATCH",
            f"{PIPELINES}/shown/status",
            {"status": {"readyReplicas": 1, "conditions": [_condition("Ready")]}},
            MERGE,
        ),
        Step("POST", BUDGETS, {**BUDGET, "metadata": {"name": "shown"}}),
        Step("POST", REVISIONS, {**REVISION, "metadata": {"name": "shown"}}),
        _shown(f"{CORE}/pods/shown"),
        _shown(f"{CORE}/configmaps/shown"),
        _shown(f"{DEPLOYMENTS}/shown"),
        _shown(f"{PIPELINES}/shown"),
        _shown(f"{BUDGETS}/shown"),
        _shown(f"{REVISIONS}/shown"),
        _shown("/api/v1/nodes/n1"),
        _shown("/api/v1/namespaces/default"),
        _shown(f"{CORE}/secrets?labelSelector=none"),
        _shown(f"{CORE}/serviceaccounts?labelSelector=none"),
        _shown("/apis/coordination.k8s.io/v1/leases?labelSelector=none"),
        _shown("/apis/apps/v1/replicasets?labelSelector=none"),
        _shown(f"{CORE}/services?labelSelector=none"),
        _shown(f"{CORE}/events?fieldSelector=reason%3DNone"),
        _shown("/apis/events.k8s.io/v1/events?fieldSelector=reason%3DNone"),
        *(Step("DELETE", f"{path}/shown?gracePeriodSeconds=0") for path in PATHS),
        Step("DELETE", "/api/v1/nodes/n1"),
    ],
    "custom resources": [
        Step("POST", PIPELINES, pipeline("llama")),
        Step("POST", PIPELINES, pipeline("llama")),
        Step("POST", PIPELINES, pipeline("x", replicas=-1, pipeline={"stages": 0})),
        Step("POST", PIPELINES, pipeline("x", pipeline={"stages": 3, "partition": [1, 2]})),
        Step("POST", PIPELINES, pipeline("x", model={"uri": "ftp://x", "dtype": "int3"})),
        Step("POST", PIPELINES, pipeline("x", model={})),
        Step("POST", PIPELINES, pipeline("x", pipeline={"partition": []})),
        Step("POST", PIPELINES, pipeline("x", resources={"limits": {"cpu": "x y"}})),
        Step("POST", PIPELINES, pipeline("x", rollout={"progressDeadline": "soon"})),
        Step("POST", PIPELINES, pipeline("x", resources=[])),
        Step("POST", PIPELINES, pipeline("x", model=None)),
        Step("POST", PIPELINES, pipeline("x", pipeline={"stages": None})),
        Step("POST", f"{CORE}/configmaps", {"metadata": {"name": "y", "labels": {"a": 1}}}),
        Step("POST", PIPELINES, pipeline("x", stageOverrides=[{"stages": [9]}])),
        Step(
            "POST",
            PIPELINES,
            pipeline("x", pipeline={"stages": 2}, stageOverrides=[{"stages": [9]}]),
        ),
        Step("POST", PIPELINES, pipeline("x", rollout={"maxSurge": 0})),
        Step("POST", PIPELINES, {**pipeline("y"), "spec": "text"}),
        Step("POST", PIPELINES, {**pipeline("y"), "metadata": {"name": "y", "labels": {"a": 1}}}),
        Step("POST", PIPELINES, {**pipeline("y"), "metadata": {"labels": {}}}),
        Step("POST", PIPELINES, {**pipeline("y"), "apiVersion": "stageline.dev/v2"}),
        Step("POST", PIPELINES, {**pipeline("y"), "kind": "Other"}, only_code=True),
        Step("POST", PIPELINES, pipeline("with.dot")),
        Step("POST", PIPELINES, pipeline("x" * 64)),
        Step("POST", PIPELINES, pipeline("y", replicas=-1, model={"uri": "ftp://x"})),
        Step("POST", f"{PIPELINES}?fieldValidation=Strict", pipeline("x", modle={})),
        Step("POST", f"{PIPELINES}?dryRun=All", pipeline("dry", modle={})),
        Step("GET", f"{PIPELINES}/dry"),
        Step("PUT", f"{PIPELINES}/llama", pipeline("llama")),
        Step("PATCH", f"{PIPELINES}/llama", {"spec": {"replicas": 3}}, MERGE),
        Step("PATCH", f"{PIPELINES}/llama", {"status": {"replicas": 3}}, MERGE),
        Step("PATCH", f"{PIPELINES}/llama", {"metadata": {"labels": {"a": "b"}}}, MERGE),
        Step("PATCH", f"{PIPELINES}/llama", {"spec": {"replicas": 3}}, STRATEGIC),
        Step("PATCH", f"{PIPELINES}/llama", {"spec": {"replicas": "3"}}, MERGE),
        Step("PATCH", f"{PIPELINES}/llama", {"spec": {"router": None}}, MERGE),
        Step(
            "PATCH",
            f"{PIPELINES}/llama/status",
            {"status": {"conditions": [{**_condition("Ready", "Perhaps"), "reason": ""}]}},
            MERGE,
        ),
        Step(
            "PATCH",
            f"{PIPELINES}/llama/status",
            {"status": {"conditions": [{**_condition("Ready"), "lastTransitionTime": "now"}]}},
            MERGE,
        ),
        Step("PATCH", f"{PIPELINES}/llama/status", {"status": {"replicas": -1, "x": 1}}, MERGE),
        Step("PATCH", f"{PIPELINES}/llama", {"spec": {"model": {"uri": "hf://a/b"}}}, MERGE),
        Step("PATCH", f"{PIPELINES}/llama", {"spec": {"model": {"uri": "hf://a/c"}}}, MERGE),
        Step("PATCH", f"{PIPELINES}/llama", {"spec": {"model": {"uri": "hf://a/b@c"}}}, MERGE),
        Step("GET", f"{PIPELINES}/llama/scale"),
        Step("PATCH", f"{PIPELINES}/llama/scale", {"spec": {"replicas": 2}}, MERGE),
        Step("PATCH", f"{PIPELINES}/llama/scale", {"spec": {"replicas": -2}}, MERGE),
        Step("GET", f"{PIPELINES}/llama"),
        Step("DELETE", f"{PIPELINES}/llama", {"preconditions": {"uid": "x"}}),
        Step("DELETE", f"{PIPELINES}/llama"),
        Step("DELETE", f"{PIPELINES}/llama"),
    ],
    "apply to custom resources": [
        Step("PATCH", f"{PIPELINES}/a", _applied(PD, "a", spec=PD["spec"]), APPLY),
        Step("PATCH", f"{PIPELINES}/a?fieldManager=m", _applied(PD, "a", spec=PD["spec"]), APPLY),
        Step(
            "PATCH",
            f"{PIPELINES}/a/status?fieldManager=m",
            _applied(PD, "a", status={"replicas": 1, "conditions": [_condition("Ready")]}),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{PIPELINES}/a/status?fieldManager=n",
            _applied(PD, "a", status={"conditions": [_condition("Planned")]}),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{PIPELINES}/a/status?fieldManager=n",
            _applied(PD, "a", status={"conditions": [_condition("Ready", "False")]}),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{PIPELINES}/a/status?fieldManager=m",
            _applied(PD, "a", status={"replicas": 1}),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{PIPELINES}/a/status?fieldManager=m",
            _applied(PD, "a", status={"conditions": [_condition("Ready"), _condition("Ready")]}),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{PIPELINES}/a?fieldManager=n",
            _applied(PD, "a", spec={"model": {"uri": "file:///other"}}),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{PIPELINES}/a?fieldManager=n&force=true",
            _applied(PD, "a", spec={"model": {"uri": "file:///other"}}),
            APPLY,
        ),
        Step(
            "PATCH", f"{PIPELINES}/a?fieldManager=n", _applied(PD, "a", spec={"replica": 1}), APPLY
        ),
        Step(
            "PATCH",
            f"{PIPELINES}/a?fieldManager=n",
            _applied(PD, "a", spec={"replicas": "1"}),
            APPLY,
        ),
        Step("PATCH", f"{PIPELINES}/none/status?fieldManager=m", _applied(PD, "none"), APPLY),
        Step("DELETE", f"{PIPELINES}/a"),
    ],
    "deployments": [
        Step(
            "POST",
            DEPLOYMENTS,
            deployment(
                ports=[{"containerPort": 80}],
                readinessProbe={"grpc": {"port": 7070}},
                env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            ),
        ),
        Step("POST", f"{DEPLOYMENTS}?fieldValidation=Strict", deployment("x", imge=1)),
        Step("POST", DEPLOYMENTS, deployment("x", image=1)),
        Step("POST", DEPLOYMENTS, deployment("X", image="")),
        Step("GET", f"{DEPLOYMENTS}/none"),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/d",
            {"spec": {"selector": {"matchLabels": {"z": "z"}}}},
            MERGE,
        ),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/d",
            {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s"}]}}}},
            STRATEGIC,
        ),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/d?fieldManager=m",
            _applied(
                DEP, "d", spec={"template": {"spec": {"containers": [{"name": "c", "image": "y"}]}}}
            ),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/d?fieldManager=m&force=true",
            _applied(
                DEP,
                "d",
                spec={
                    "replicas": 3,
                    "template": {"spec": {"containers": [{"name": "c", "image": "y"}]}},
                },
            ),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/d",
            [{"op": "test", "path": "/spec/replicas", "value": 77}],
            JSON_PATCH,
        ),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/d",
            [{"op": "replace", "path": "/spec/replicas", "value": 4}],
            JSON_PATCH,
        ),
        Step("PATCH", f"{DEPLOYMENTS}/d/status", {"status": {"replicas": 4}}, MERGE),
        Step("GET", f"{DEPLOYMENTS}/d/scale"),
        Step("DELETE", f"{DEPLOYMENTS}/d?dryRun=All"),
        Step("DELETE", f"{DEPLOYMENTS}/d", {"propagationPolicy": "Foreground"}),
        Step("PATCH", f"{DEPLOYMENTS}/d", {"metadata": {"finalizers": None}}, MERGE),
        Step("GET", f"{DEPLOYMENTS}/d"),
    ],
    "pods": [
        Step("POST", f"{CORE}/pods", pod("p")),
        Step("DELETE", f"{CORE}/pods/p"),
        Step("GET", f"{CORE}/pods/p"),
        Step("POST", f"{CORE}/pods", pod("x", ownerReferences=OWNERS)),
        Step("POST", f"{CORE}/pods", pod("x", labels={"a": "b b"})),
        Step("POST", f"{CORE}/pods", pod("q", "n1")),
        Step("PATCH", f"{CORE}/pods/q", {"spec": {"terminationGracePeriodSeconds": 3}}, MERGE),
        Step("PATCH", f"{CORE}/pods/q/status", {"status": {"phase": "Running"}}, MERGE),
        Step("DELETE", f"{CORE}/pods/q"),
        Step("DELETE", f"{CORE}/pods/q", {"gracePeriodSeconds": 5}),
        Step("DELETE", f"{CORE}/pods/q?gracePeriodSeconds=0", {"preconditions": {"uid": "x"}}),
        Step("DELETE", f"{CORE}/pods/q?gracePeriodSeconds=0"),
        Step("GET", f"{CORE}/pods/q"),
        Step("POST", f"{CORE}/pods", pod("f", "n1", finalizers=["stageline.dev/test"])),
        Step("DELETE", f"{CORE}/pods/f?gracePeriodSeconds=0"),
        Step("PATCH", f"{CORE}/pods/f", {"metadata": {"finalizers": None}}, MERGE),
        Step("GET", f"{CORE}/pods/f"),
        Step("GET", "/api/v1/pods?fieldSelector=spec.foo%3D1"),
        Step("GET", "/api/v1/pods?labelSelector=a%20b"),
        Step("POST", f"{CORE}/pods", pod("b")),
        Step(
            "POST",
            f"{CORE}/pods/b/binding",
            {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": "b"},
                "target": {"name": "n"},
            },
        ),
        Step(
            "POST",
            f"{CORE}/pods/b/binding",
            {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": "b"},
                "target": {"name": "n"},
            },
        ),
        Step("GET", f"{CORE}/pods/b"),
        Step(
            "POST",
            f"{CORE}/pods/b/eviction",
            {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "b"}},
        ),
        Step("GET", f"{CORE}/pods/b"),
        Step("DELETE", f"{CORE}/pods/b?gracePeriodSeconds=0"),
    ],
    "other kinds": [
        Step("POST", f"{CORE}/services", SERVICE),
        Step("PATCH", f"{CORE}/services/s", {"metadata": {"labels": {"x": "y"}}}, MERGE),
        Step("DELETE", f"{CORE}/services/s"),
        Step(
            "POST",
            f"{CORE}/services",
            {
                **SERVICE,
                "metadata": {"name": "h"},
                "spec": {**SERVICE["spec"], "clusterIP": "None"},
            },
        ),
        Step("POST", f"{CORE}/services", {**SERVICE, "metadata": {"name": "1s"}}),
        Step("POST", f"{CORE}/services", {**SERVICE, "metadata": {"name": "n"}, "spec": {}}),
        Step("POST", f"{CORE}/configmaps", config_map(a="1")),
        Step("PUT", f"{CORE}/configmaps/c", config_map(a="2")),
        Step("PUT", f"{CORE}/configmaps/d", config_map(a="2")),
        Step(
            "PATCH",
            f"{CORE}/configmaps/c?fieldManager=m",
            _applied(CM, "c", data={"a": "3"}),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{CORE}/configmaps/c?fieldManager=m",
            _applied(CM, "c", data={"b": "3"}),
            APPLY,
        ),
        Step("PATCH", f"{CORE}/configmaps/c?fieldManager=m", _applied(CM, "c"), APPLY),
        Step("PATCH", f"{CORE}/configmaps/c", {"metadata": {"resourceVersion": "1"}}, MERGE),
        Step("DELETE", f"{CORE}/configmaps/c"),
        Step("POST", "/api/v1/namespaces/none/configmaps", config_map()),
        Step(
            "POST",
            f"{CORE}/serviceaccounts",
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sa"}},
        ),
        Step("DELETE", f"{CORE}/serviceaccounts/sa"),
        Step("POST", BUDGETS, BUDGET),
        Step("DELETE", f"{BUDGETS}/b"),
        Step("POST", REVISIONS, REVISION),
        Step("PATCH", f"{REVISIONS}/r", {"data": {"a": 2}}, MERGE),
        Step("POST", "/apis/events.k8s.io/v1/namespaces/default/events", EVENT),
        Step("GET", f"{CORE}/events?fieldSelector=involvedObject.name%3Dq"),
        Step(
            "POST",
            f"{CORE}/secrets",
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "s"},
                "stringData": {"token": "x"},
            },
        ),
        Step("GET", "/api/v1/foos"),
        Step("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}}),
        Step("GET", f"{CORE}/configmaps?limit=1&resourceVersion=0"),
    ],
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with RealServer(tmp_path_factory.mktemp("kube")) as server:
        where = server.server
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        login = {"token": where.token, "ca_file": where.ca_file}
        made = ask(where.url, "POST", crds, crd(), **login)
        assert made.code == 201, f"the CRD was refused: {made.message}"
        deadline = time.monotonic() + 20
        while (code := ask(where.url, "GET", PIPELINES, **login).code) != 200:
            assert time.monotonic() < deadline, f"the CRD is not served: {code}"
            time.sleep(0.02)
        yield where


@pytest.mark.xdist_group("kube-apiserver")
@pytest.mark.parametrize("name", STEPS)
def test_the_same_requests_have_the_same_answers(real, name):
    login = {"token": real.token, "ca_file": real.ca_file}
    differences = []
    with served() as ours:
        for step in STEPS[name]:
            theirs = ask(real.url, *step[:4], accept=step.accept, **login)
            mine = ask(ours.url, *step[:4], accept=step.accept)
            same = step.only_code or normal(theirs.body) == normal(mine.body)
            if theirs.code != mine.code or not same:
                differences.append((step[:3], theirs, mine))
    assert not differences, "\n\n".join(
        f"{step}\n  real {theirs.code}: {normal(theirs.body)}\n"
        f"  ours {mine.code}: {normal(mine.body)}"
        for step, theirs, mine in differences
    )
