"""Requests about Kubernetes' own kinds."""

from support.apiserver import (
    APPLY,
    CORE,
    DEPLOYMENTS,
    JSON_PATCH,
    MERGE,
    STRATEGIC,
    config_map,
    deployment,
    pod,
)
from support.steps import BUDGET, BUDGETS, REVISION, REVISIONS, SERVICE, Step, applied

DEP, CM = deployment(), config_map()
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


STEPS = {
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
            applied(
                DEP, "d", spec={"template": {"spec": {"containers": [{"name": "c", "image": "y"}]}}}
            ),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{DEPLOYMENTS}/d?fieldManager=m&force=true",
            applied(
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
            applied(CM, "c", data={"a": "3"}),
            APPLY,
        ),
        Step(
            "PATCH",
            f"{CORE}/configmaps/c?fieldManager=m",
            applied(CM, "c", data={"b": "3"}),
            APPLY,
        ),
        Step("PATCH", f"{CORE}/configmaps/c?fieldManager=m", applied(CM, "c"), APPLY),
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
