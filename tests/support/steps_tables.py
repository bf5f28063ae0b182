"""Requests for what kubectl get shows."""

from support.apiserver import (
    CORE,
    DEPLOYMENTS,
    JSON,
    MERGE,
    PIPELINES,
    config_map,
    deployment,
    pipeline,
    pod,
)
from support.steps import BUDGET, BUDGETS, REVISION, REVISIONS, SERVICE, Step, condition

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
            {"status": {"readyReplicas": 1, "conditions": [condition("Ready")]}},
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
}
