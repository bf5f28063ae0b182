"""`stageline status` as a process, of an API server as any cluster has one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stageline_local.apiserver import served
from stageline_local.cluster import kubeconfig
from stageline_local.statedir import StateDir
from support.apiserver import MERGE, PIPELINES, ask
from support.resources import conditions, resource, stage

PLUGIN = Path(sys.executable).with_name("kubectl-stageline")
CRASH = "pipeline 0 stage 1 (pod llama-f00-0-1): Error: no space left on device"


@pytest.fixture(scope="module")
def server():
    """A server with two resources: `broken`, and `fresh`, which no operator has seen."""
    with served() as api:
        for name in ("broken", "fresh"):
            spec = {"model": {"uri": "hf://a/b"}, "replicas": 1}
            made = {
                "apiVersion": "stageline.dev/v1alpha1",
                "kind": "PipelineDeployment",
                "metadata": {"name": name},
                "spec": spec,
            }
            assert ask(api.url, "POST", PIPELINES, made).code == 201
        give_status(api.url)
        yield api


def give_status(url, reason="StageCrashed"):
    status = resource(
        observedGeneration=1,
        conditions=conditions(Ready=("False", reason, CRASH)),
        stages=[stage(0, state="Loaded"), stage(1, state="Failed", message="no space left")],
    )["status"]
    for entry in status["conditions"]:
        entry["lastTransitionTime"] = "2026-11-24T12:00:00Z"
    given = ask(url, "PATCH", f"{PIPELINES}/broken/status", {"status": status}, MERGE)
    assert given.code == 200, given.body
    uid = given.body["metadata"]["uid"]
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"broken.{reason.lower()}"},
        "eventTime": "2026-11-24T12:00:00.000000Z",
        "reportingController": "stageline",
        "reportingInstance": "test",
        "action": "Reconcile",
        "type": "Warning",
        "reason": reason,
        "note": CRASH,
        "regarding": {"kind": "PipelineDeployment", "name": "broken", "uid": uid},
    }
    events = "/apis/events.k8s.io/v1/namespaces/default/events"
    assert ask(url, "POST", events, event).code in (201, 409)


def status(*arguments, program=(sys.executable, "-m", "stageline_cli.main"), **env):
    return subprocess.run(
        [*map(str, program), "status", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env=os.environ | env,
    )  # fmt: skip


def test_resource_in_trouble(server):
    done = status("broken", "--server", server.url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        "NAME", "READY", "STAGES", "PIPELINES", "UPDATED", "REASON", "AGE"
    ]  # fmt: skip
    assert lines[1].split()[:2] == ["broken", "False"]
    assert f"Ready False StageCrashed: {CRASH}" in lines
    assert any(line.endswith("no space left") and "Failed" in line for line in lines)
    assert any(line.split()[-6:] == CRASH.split()[-6:] and " ago " in line for line in lines)


def test_without_a_name_all_are_listed(server):
    done = status("--server", server.url)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["NAME", "broken", "fresh"]


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_object_itself(server, form, read):
    one = read(status("fresh", "--server", server.url, "-o", form).stdout)
    assert (one["kind"], one["metadata"]["name"]) == ("PipelineDeployment", "fresh")
    assert "managedFields" not in one["metadata"]
    both = read(status("--server", server.url, "-o", form).stdout)
    assert [item["kind"] for item in both["items"]] == ["PipelineDeployment"] * 2


def test_running_up_is_found_by_its_folder(server, tmp_path):
    for name in ("broken", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(server.url)))
    with StateDir(tmp_path, "broken"):
        assert "StageCrashed" in status("broken", "--state-dir", tmp_path).stdout
        with StateDir(tmp_path, "other"):
            assert "StageCrashed" in status("broken", "--state-dir", tmp_path).stdout
            several = status("--state-dir", tmp_path)
            assert several.returncode == 1
            assert "2 models run" in several.stderr
            assert "(broken, other): name one" in several.stderr


def test_kubectl_plugin_takes_kubectls_cluster(server, tmp_path):
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(kubeconfig(server.url, namespace="empty")))
    plugin = {"program": (PLUGIN,), "KUBECONFIG": str(path)}
    done = status("broken", "-n", "default", "--context", "stageline", **plugin)
    assert f"Ready False StageCrashed: {CRASH}" in done.stdout.splitlines()
    missing = status("broken", **plugin)
    assert missing.returncode == 1
    assert missing.stderr == "there is no PipelineDeployment broken in namespace empty\n"


def test_nothing_runs_and_no_cluster_is_known(tmp_path):
    done = status("--state-dir", tmp_path, HOME=str(tmp_path), KUBECONFIG="")
    assert done.returncode == 1
    assert done.stderr.startswith(f"no `stageline up` runs from {tmp_path}, and there is no kube")
    assert len(done.stderr.splitlines()) == 1


def test_server_that_does_not_answer():
    done = status("--server", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no answer from http://127.0.0.1:1: [Errno 111] Connection refused\n"


def test_watch_prints_again_when_something_changes(server):
    process = subprocess.Popen(
        [sys.executable, "-m", "stageline_cli.main", "status", "broken", "--watch",
         "--server", server.url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            read_to(process.stdout, "Ready False StageCrashed")
            give_status(server.url, "StageOutOfMemory")
            read_to(process.stdout, "Ready False StageOutOfMemory")
        finally:
            give_status(server.url)
            process.terminate()
    assert process.returncode == -15


def read_to(lines, start):
    for line in lines:
        if line.startswith(start):
            return
    raise AssertionError(f"it ended without {start!r}")
