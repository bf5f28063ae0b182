"""What `kubectl get` prints."""

from datetime import UTC, datetime, timedelta

import pytest

from stageline_local.apiserver import jsonpath, tables
from stageline_local.apiserver.kinds import BUILT_IN, Kind
from stageline_local.apiserver.registry import Served
from stageline_local.apiserver.schema import ANY
from stageline_local.apiserver.tables import age

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
AN_HOUR_AGO = "2026-01-01T11:00:00Z"
KINDS = {(kind.group, kind.plural): kind for kind in BUILT_IN}


def printed(group, plural, obj, wide=False):
    """Column names with what stands below them."""
    served = Served(KINDS[group, plural], ANY, {})
    return row(served, obj, wide)


def row(served, obj, wide=False):
    meta = {"name": "x", "creationTimestamp": AN_HOUR_AGO, **obj.get("metadata", {})}
    found = tables.table(served, [{**obj, "metadata": meta}], "None", NOW)
    columns = found["columnDefinitions"]
    (line,) = found["rows"]
    assert len(line["cells"]) == len(columns), "a row has a cell for each column"
    return {
        column["name"]: cell
        for column, cell in zip(columns, line["cells"], strict=True)
        if wide or column["priority"] == 0
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (185, "3m5s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (7 * 3600 + 720, "7h12m"),
        (9 * 3600, "9h"),
        (47 * 3600, "47h"),
        (50 * 3600, "2d2h"),
        (8 * 86400, "8d"),
        (729 * 86400, "729d"),
        (1000 * 86400, "2y270d"),
        (-5, "0s"),
    ],
)
def test_ages(seconds, text):
    assert age((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == text


def pod(*states, phase="Running", meta=None, **status):
    containers = [
        {"name": str(place), "ready": "running" in state, "state": state, "restartCount": 0}
        for place, state in enumerate(states)
    ]
    return {
        "metadata": meta or {},
        "spec": {"containers": [{}] * max(len(states), 1), "nodeName": "n1"},
        "status": {"phase": phase, "containerStatuses": containers, **status},
    }


RUNNING = {"running": {}}


@pytest.mark.parametrize(
    ("obj", "ready", "status"),
    [
        (pod(RUNNING), "1/1", "Running"),
        (pod(phase="Pending"), "0/1", "Pending"),
        (pod(RUNNING, {"waiting": {"reason": "CrashLoopBackOff"}}), "1/2", "CrashLoopBackOff"),
        (
            pod({"waiting": {"reason": "ErrImagePull"}}, phase="Pending"),
            "0/1",
            "ErrImagePull",
        ),
        (pod({"terminated": {"reason": "Completed"}}, phase="Succeeded"), "0/1", "Completed"),
        (pod({"terminated": {"exitCode": 3}}, phase="Failed"), "0/1", "ExitCode:3"),
        (pod({"terminated": {"signal": 9}}, phase="Failed"), "0/1", "Signal:9"),
        (pod(phase="Failed", reason="Evicted"), "0/1", "Evicted"),
        (pod(RUNNING, meta={"deletionTimestamp": AN_HOUR_AGO}), "1/1", "Terminating"),
        (
            pod({"terminated": {"reason": "Completed"}}, RUNNING),
            "1/2",
            "NotReady",
        ),
    ],
)
def test_pods(obj, ready, status):
    found = printed("", "pods", obj)
    assert (found["Ready"], found["Status"], found["Age"]) == (ready, status, "60m")


def test_restarts_say_when_the_last_one_was():
    obj = pod(RUNNING)
    container = obj["status"]["containerStatuses"][0]
    container["restartCount"] = 2
    container["lastState"] = {"terminated": {"finishedAt": "2026-01-01T11:59:00Z"}}
    assert printed("", "pods", obj)["Restarts"] == "2 (60s ago)"


TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
SELECTOR = {"matchLabels": {"a": "b"}}


@pytest.mark.parametrize(
    ("group", "plural", "obj", "wide", "cells"),
    [
        (
            "apps",
            "deployments",
            {
                "spec": {"replicas": 3, "template": TEMPLATE, "selector": SELECTOR},
                "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1},
            },
            True,
            {
                "Name": "x",
                "Ready": "1/3",
                "Up-to-date": 2,
                "Available": 1,
                "Age": "60m",
                "Containers": "c",
                "Images": "i",
                "Selector": "a=b",
            },
        ),
        (
            "",
            "services",
            {"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{"port": 80}]}},
            False,
            {
                "Name": "x",
                "Type": "ClusterIP",
                "Cluster-IP": "10.0.0.1",
                "External-IP": "<none>",
                "Port(s)": "80/TCP",
                "Age": "60m",
            },
        ),
        (
            "",
            "events",
            {
                "type": "Warning",
                "reason": "Failed",
                "message": "it did\n",
                "involvedObject": {"kind": "Pod", "name": "p"},
                "lastTimestamp": "2026-01-01T11:59:30Z",
            },
            False,
            {
                "Last Seen": "30s",
                "Type": "Warning",
                "Reason": "Failed",
                "Object": "pod/p",
                "Message": "it did",
                "Name": "x",
            },
        ),
        (
            "events.k8s.io",
            "events",
            {
                "type": "Normal",
                "reason": "Planned",
                "note": "done",
                "regarding": {"kind": "PipelineDeployment", "name": "p"},
                "eventTime": "2026-01-01T11:58:00.000000Z",
            },
            False,
            {
                "Last Seen": "2m",
                "Type": "Normal",
                "Reason": "Planned",
                "Object": "pipelinedeployment/p",
                "Message": "done",
                "Name": "x",
            },
        ),
        (
            "",
            "configmaps",
            {"data": {"a": "1", "b": "2"}},
            False,
            {"Name": "x", "Data": 2, "Age": "60m"},
        ),
        (
            "",
            "nodes",
            {
                "spec": {"unschedulable": True},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1"},
                },
            },
            False,
            {
                "Name": "x",
                "Status": "Ready,SchedulingDisabled",
                "Roles": "<none>",
                "Age": "60m",
                "Version": "v1",
            },
        ),
        (
            "policy",
            "poddisruptionbudgets",
            {"spec": {"minAvailable": 2}, "status": {"disruptionsAllowed": 1}},
            False,
            {
                "Name": "x",
                "Min Available": "2",
                "Max Unavailable": "N/A",
                "Allowed Disruptions": 1,
                "Age": "60m",
            },
        ),
    ],
)
def test_kinds(group, plural, obj, wide, cells):
    found = printed(group, plural, obj, wide)
    if plural == "events":
        found["Name"] = "x"  # a wide column, checked for its place alone
    assert found == cells


def test_columns_of_a_crd():
    columns = [
        {
            "name": "Ready",
            "type": "string",
            "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
        },
        {"name": "Count", "type": "integer", "jsonPath": ".status.replicas"},
        {"name": "Wrong", "type": "integer", "jsonPath": ".status.text"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Absent", "type": "string", "jsonPath": ".status.none.more"},
        {"name": "More", "type": "string", "jsonPath": ".status.text", "priority": 1},
    ]
    kind = Kind("g", "v1", "things", "Thing", custom=True)
    served = Served(kind, ANY, {"additionalPrinterColumns": columns})
    status = {
        "replicas": 2,
        "text": "t",
        "conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}],
    }
    assert row(served, {"status": status}) == {
        "Name": "x",
        "Ready": "True",
        "Count": 2,
        "Wrong": None,
        "Age": "60m",
        "Absent": None,
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".a.b", 1),
        (".list[0].n", "x"),
        (".list[-1].n", "y"),
        (".list[*].n", "x"),
        ('.list[?(@.n=="y")].v', 2),
        ("['a']['b']", 1),
        (r".a.dotted\.key", 3),
        (".none", None),
        (".list[7]", None),
        ("nonsense[", None),
    ],
)
def test_paths(path, value):
    obj = {"a": {"b": 1, "dotted.key": 3}, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]}
    assert jsonpath.at(obj, path) == value
