"""An unmodified kubectl against the server, without --validate=false."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from stageline_local.apiserver import served
from support.apiserver import CORE, MERGE, PIPELINES, ask, deployment, pipeline, pod

_BESIDE = Path(sys.executable).with_name("kubectl")
KUBECTL = str(_BESIDE) if _BESIDE.exists() else shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl here")


class Kubectl:
    """Runs kubectl; a failure that nobody expects is an assertion with what it said."""

    def __init__(self, url, home):
        self._command = [KUBECTL, "--server", url]
        self._env = {"HOME": str(home), "KUBECONFIG": os.devnull, "PATH": os.environ["PATH"]}

    def run(self, *arguments, stdin=None, code=0):
        done = subprocess.run(
            [*self._command, *arguments],
            input=None if stdin is None else yaml.safe_dump(stdin),
            env=self._env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, f"kubectl {' '.join(arguments)}: {done.returncode}\n{said}"
        return said

    def start(self, *arguments):
        return subprocess.Popen(
            [*self._command, *arguments], env=self._env, stdout=subprocess.PIPE, text=True
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """kubectl keeps what it has learnt of a server here: one for all tests saves requests."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def logs(tmp_path):
    return tmp_path


@pytest.fixture
def server(logs):
    def log_path(namespace, name, container, previous):
        path = logs / f"{name}-{container}{'-previous' if previous else ''}"
        return path if path.exists() else None

    with served(log_path) as running:
        yield running


@pytest.fixture
def kubectl(server, home):
    return Kubectl(server.url, home)


@pytest.fixture
def call(server):
    return lambda *request, **how: ask(server.url, *request, **how)


def test_apply_creates_changes_and_refuses_typos(kubectl):
    assert "created" in kubectl.run("apply", "-f", "-", stdin=pipeline())
    assert "configured" in kubectl.run("apply", "-f", "-", stdin=pipeline(replicas=3))
    assert "unchanged" in kubectl.run("apply", "-f", "-", stdin=pipeline(replicas=3))
    typo = kubectl.run("apply", "-f", "-", stdin=pipeline(replica=3), code=1)
    assert 'strict decoding error: unknown field "spec.replica"' in typo
    wrong = kubectl.run("create", "-f", "-", stdin=pipeline("x", replicas=-1), code=1)
    assert "spec.replicas in body should be greater than or equal to 0" in wrong


def test_diff_and_apply_of_a_built_in_kind(kubectl):
    kubectl.run("apply", "-f", "-", stdin=deployment(image="one"))
    difference = kubectl.run("diff", "-f", "-", stdin=deployment(image="two"), code=1)
    assert "-      - image: one" in difference
    assert "+      - image: two" in difference
    kubectl.run("apply", "-f", "-", stdin=deployment(image="two"))
    assert "two" in kubectl.run("get", "deploy", "d", "-o", "wide")


def test_server_side_apply_says_who_disagrees(kubectl):
    apply = ("apply", "--server-side", "-f", "-")
    assert "serverside-applied" in kubectl.run(*apply, "--field-manager=one", stdin=pipeline())
    other = pipeline(replicas=2, model={"uri": "file:///other"})
    refused = kubectl.run(*apply, "--field-manager=two", stdin=other, code=1)
    assert 'conflict with "one": .spec.model.uri' in refused
    kubectl.run(*apply, "--field-manager=two", "--force-conflicts", stdin=other)


def test_client_side_apply_can_become_server_side(kubectl):
    kubectl.run("apply", "-f", "-", stdin=deployment())
    kubectl.run("apply", "--server-side", "-f", "-", stdin=deployment(image="two"))
    claims = kubectl.run("get", "deploy", "d", "--show-managed-fields", "-o", "yaml")
    assert "kubectl-client-side-apply" not in claims


def test_explain(kubectl):
    assert "stages\t<integer>" in kubectl.run("explain", "pld.spec.pipeline")
    assert "restartPolicy\t<string>" in kubectl.run("explain", "pod.spec")


def test_lists_are_printed_as_a_cluster_prints_them(kubectl, call):
    call("POST", PIPELINES, pipeline())
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "StageImagePull",
        "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"status": {"replicas": 2, "readyReplicas": 1, "conditions": [condition]}}
    assert call("PATCH", f"{PIPELINES}/llama/status", status, MERGE).code == 200
    call("POST", f"{CORE}/pods", pod("p"))
    printed = kubectl.run("get", "pld,pods,svc")
    assert "StageImagePull" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["NAME", "READY", "STATUS", "RESTARTS", "AGE"] in lines
    assert ["pod/p", "0/1", "Pending", "0"] in [line[:4] for line in lines]


def test_small_changes(kubectl):
    kubectl.run("create", "-f", "-", stdin=pipeline())
    kubectl.run("label", "pld/llama", "team=a")
    kubectl.run("annotate", "pld/llama", "note=b")
    kubectl.run("scale", "pld/llama", "--replicas=4")
    kubectl.run("patch", "pld/llama", "--type=merge", "-p", '{"spec":{"router":{"port":9}}}')
    kubectl.run("wait", "pld/llama", "--for=jsonpath={.spec.replicas}=4", "--timeout=5s")
    found = json.loads(kubectl.run("get", "pld", "-l", "team=a", "-o", "json"))
    (obj,) = found["items"]
    assert obj["metadata"]["annotations"]["note"] == "b"
    assert (obj["spec"]["replicas"], obj["spec"]["router"]["port"]) == (4, 9)
    kubectl.run("replace", "-f", "-", stdin=obj)


def test_secrets_are_created_as_users_do_it(kubectl, call):
    kubectl.run("create", "secret", "generic", "hf", "--from-literal=HF_TOKEN=xyz")
    assert call("GET", f"{CORE}/secrets/hf").body["data"] == {"HF_TOKEN": "eHl6"}


def test_describe_finds_the_events_of_an_object(kubectl, call):
    uid = call("POST", PIPELINES, pipeline()).body["metadata"]["uid"]
    event = {
        "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "stageline.dev/operator",
        "reportingInstance": "operator",
        "action": "Plan",
        "reason": "Planned",
        "type": "Normal",
        "note": "4 stages",
        "regarding": {
            "kind": "PipelineDeployment",
            "apiVersion": "stageline.dev/v1alpha1",
            "uid": uid,
            "name": "llama",
            "namespace": "default",
        },
    }
    place = "/apis/events.k8s.io/v1/namespaces/default/events"
    assert call("POST", place, event).code == 201
    assert "4 stages" in kubectl.run("describe", "pld", "llama")
    assert "pipelinedeployment/llama" in kubectl.run("get", "events")


def test_delete_waits_until_a_pod_is_gone(kubectl, call):
    call("POST", f"{CORE}/pods", pod("p", "n1"))
    deletion = kubectl.start("delete", "pod", "p")
    path = f"{CORE}/pods/p"
    wait_until(lambda: "deletionTimestamp" in call("GET", path).body["metadata"])
    assert deletion.poll() is None, "kubectl did not wait for the kubelet"
    call("DELETE", f"{path}?gracePeriodSeconds=0")
    output, _ = deletion.communicate(timeout=20)
    assert deletion.returncode == 0
    assert 'pod "p" deleted' in output


def test_watching_prints_changes_as_they_come(kubectl, call):
    call("POST", f"{CORE}/pods", pod("p"))
    watching = kubectl.start("get", "pods", "-w", "--no-headers")
    try:
        assert watching.stdout.readline().split()[:3] == ["p", "0/1", "Pending"]
        call("PATCH", f"{CORE}/pods/p/status", {"status": {"phase": "Failed"}}, MERGE)
        assert watching.stdout.readline().split()[:3] == ["p", "0/1", "Failed"]
    finally:
        watching.terminate()
        watching.communicate(timeout=10)


def test_logs_are_read_followed_and_remembered(kubectl, call, logs):
    call("POST", f"{CORE}/pods", pod("p", "n1"))
    assert "is waiting to start" in kubectl.run("logs", "p", code=1)
    (logs / "p-c").write_text("one\ntwo\nthree\n")
    (logs / "p-c-previous").write_text("before\n")
    assert kubectl.run("logs", "p", "--tail=2") == "two\nthree\n"
    assert kubectl.run("logs", "p", "--previous") == "before\n"
    following = kubectl.start("logs", "p", "-f", "--tail=1")
    assert following.stdout.readline() == "three\n"
    with (logs / "p-c").open("a") as log:
        log.write("four\n")
    assert following.stdout.readline() == "four\n"
    call("PATCH", f"{CORE}/pods/p/status", {"status": {"phase": "Succeeded"}}, MERGE)
    following.communicate(timeout=20)
    assert following.returncode == 0, "the log ends with its pod"


def wait_until(holds, seconds=10.0):
    waiting = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        waiting.wait(0.02)
    raise AssertionError(f"not within {seconds} s")
