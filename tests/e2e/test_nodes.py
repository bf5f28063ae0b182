"""On real nodes: installed, called, changed, and everything that can die killed.

The tests follow each other on one installation: each starts from the model serving, and leaves it
serving.
"""

import json
import os
import time

import pytest
import tritonclient.grpc as triton
import yaml

from e2e import hands
from e2e.clients import Load, forwarded, written
from e2e.cluster import condition_of, get, helm, items, kubectl, node_command, nodes, until
from e2e.conftest import CHART, CHECKPOINT, CRD, MODELS, ROOT, SAMPLE, SYSTEM, restricted_namespace
from e2e.deployment import Key, life_of
from e2e.images import build, load

LEAVING_SECONDS = {0: 29.0, 1: 8.0}  # a leader finishes what it has accepted; SIGKILL is at 30
NODE_SECONDS = 300.0


INSIDE = """
import errno, importlib.util, json, os, shutil
from importlib.metadata import distributions
try:
    open("/file", "w")
    root = ""
except OSError as error:
    root = errno.errorcode[error.errno]
print(json.dumps({
    "user": os.getuid(), "root": root, "torch": importlib.util.find_spec("torch") is not None,
    "tools": [name for name in ("gcc", "cc", "g++", "clang", "make") if shutil.which(name)],
    "cache": os.path.exists(os.path.expanduser("~/.cache/pip")),
    "packages": {found.name.lower().replace("_", "-"): found.version.partition("+")[0]
                 for found in distributions(path=["/opt/stageline/lib/python3.11/site-packages"])},
}))
"""
LOCK = dict(
    line.lower().replace("_", "-").split("==")
    for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
)  # fmt: skip


def needs(*variables):
    """Leaves a test out where the cluster came without these commands."""
    lacking = [variable for variable in variables if not os.environ.get(variable)]
    reason = f"needs {' and '.join(lacking)}: commands to which a node's name is appended"
    return pytest.mark.skipif(bool(lacking), reason=reason)


def answers(model, expected):
    """A client reads what the uncut model writes."""
    with called(model) as address, triton.InferenceServerClient(address) as client:
        assert written(client) == expected


def called(model):
    """host:port of its router, on this machine."""
    return forwarded(MODELS, f"service/{model.name}")


def test_images_are_built_when_something_changed(images):
    build(images)


def test_images_are_loaded_where_a_node_lacks_them(images):
    load(images)


def test_helm_installs_into_a_restricted_namespace(images):
    restricted_namespace(SYSTEM)
    where = ("--namespace", SYSTEM)
    helm("install", "stageline", str(CHART), *where, *images.values(), "--wait", "--timeout=120s")
    told = helm("test", "stageline", *where, "--logs", "--timeout=60s")
    assert "/readyz says 'ok'" in told, told


def test_the_sample_becomes_ready(images, model):
    restricted_namespace(MODELS)
    hands.place(images.name("worker"), CHECKPOINT)
    kubectl("apply", "-f", "-", fed=yaml.safe_dump_all(hands.claim(MODELS)))
    model.kubectl("apply", "-f", str(SAMPLE))
    model.kubectl("wait", "--for=condition=Ready", f"pld/{model.name}", "--timeout=180s")
    model.settle()


def test_a_client_reads_the_text_of_the_uncut_model(model, expected):
    answers(model, expected)


def test_images_hold_what_the_lock_says_and_no_tool(model):
    where = {
        "operator": ("deployment/stageline", "--namespace", SYSTEM),
        "router": (f"deployment/{model.name}-router", "--namespace", MODELS),
        "worker": (next(iter(model.pods().values()))["metadata"]["name"], "--namespace", MODELS),
    }
    for image, pod in where.items():
        told = json.loads(kubectl("exec", *pod, "--", "python", "-c", INSIDE))
        assert told.pop("torch") == (image == "worker"), f"torch in the {image}'s image"
        packages = told.pop("packages")
        assert told == {"user": 65532, "root": "EROFS", "tools": [], "cache": False}, image
        other = {name: version for name, version in packages.items() if LOCK.get(name) != version}
        assert packages
        assert not other, f"in the {image}'s image are other versions than in the lock"


def test_it_is_scaled_and_an_autoscaler_counts_pipelines(model, expected):
    before = model.lives()
    model.kubectl("scale", "pld", model.name, "--replicas=2")
    model.settle(pipelines=2)
    after = model.lives()
    assert before.items() <= after.items(), "the pipeline that was there was touched"
    assert len(after) == 4
    assert set(model.loads().values()) == {1}

    scale = json.loads(model.kubectl("get", "--raw", _scale_path(model)))
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (2, 2)
    counted = items("pods", "--namespace", MODELS, "--selector", scale["status"]["selector"])
    assert len(counted) == 2, "an autoscaler divides by the pods that the selector finds"
    model.kubectl("apply", "-f", "-", fed=yaml.safe_dump(_autoscaler(model)))
    able = until(lambda: _able(model), "the autoscaler reading the scale", 60)
    assert able["status"] == "True", able["message"]
    model.kubectl("delete", "hpa", model.name)
    answers(model, expected)


def test_a_change_is_rolled_out_and_no_request_fails(model, expected):
    before = model.pods()
    with called(model) as address, Load(address, expected) as load_:
        model.patch(generation={"maxSequences": 4})
        model.settle(pipelines=2)
        load_.more()
    assert not before.keys() & model.pods().keys(), "a pipeline of the old revision is there"


@pytest.mark.parametrize("stage", [1, 0])
def test_a_deleted_stage_is_replaced_alone(model, expected, stage):
    before = model.lives()
    key = Key(next(iter(before)).pipeline, stage)
    pod = model.pods()[key]["metadata"]
    with called(model) as address, Load(address, expected) as load_:
        began = time.monotonic()
        model.kubectl("delete", "pod", pod["name"], "--wait=false")
        until(lambda: _is_gone(model, pod["uid"]), f"the end of {pod['name']}", 60)
        took = time.monotonic() - began
        model.settle(pipelines=2)
        load_.more()
    after = model.lives()
    assert before.keys() == after.keys()
    changed = {one for one in before if before[one] != after[one]}
    assert changed == {key}, "a neighbour was restarted or replaced"
    assert set(model.loads().values()) == {1}, "a stage has loaded its weights again"
    assert took < LEAVING_SECONDS[stage], f"the deleted pod was there for {took:.1f} s"


@pytest.mark.parametrize("stage", [1, 0])
def test_a_killed_process_is_started_again_and_nothing_else(model, expected, stage):
    before = model.lives()
    key = Key(next(iter(before)).pipeline, stage)
    with called(model) as address, Load(address, expected) as load_:
        hands.kill_worker(model.pods()[key])
        until(lambda: model.lives()[key].restarts > before[key].restarts, "the restart", 60)
        model.settle(pipelines=2)
        load_.more()
    after = model.lives()
    assert after.pop(key) == before[key]._replace(restarts=before.pop(key).restarts + 1)
    assert after == before, "a neighbour was restarted or replaced"
    assert set(model.loads().values()) == {1}, "a stage that lived has loaded its weights again"


def test_the_operator_dies_in_the_middle_of_a_rollout(model, expected):
    before = model.pods()
    with called(model) as address, Load(address, expected) as load_:
        model.patch(generation={"maxSequences": 8})
        until(lambda: model.pods().keys() - before.keys(), "the first pod of the new revision", 60)
        kubectl("delete", "pod", "--namespace", SYSTEM, "--all", "--force", "--grace-period=0")
        assert before.keys() & model.pods().keys(), "the rollout was over before"
        model.settle(pipelines=2)
        load_.more()
    assert not before.keys() & model.pods().keys()


def test_an_image_that_is_nowhere_is_named_and_the_old_one_serves(model, expected):
    """One pipeline may be away: so it is not Ready any more, and says why, but it serves."""
    before = model.lives()
    rollout = {"maxSurge": 0, "maxUnavailable": 1}
    wrong = "registry.invalid/stageline-worker:none"
    with called(model) as address, Load(address, expected):
        model.patch(image=wrong, rollout=rollout)
        ready = model.says("Ready", "False", "StageImagePull")
        assert wrong in ready["message"], ready["message"]
        answers(model, expected)
        model.patch(image=None)
        model.settle(pipelines=2)
    after = model.lives()
    assert len(before.items() & after.items()) == 2, "the pipeline that served was touched"


def test_helm_upgrades_the_operator_and_pipelines_do_not_notice(model, expected):
    before, operator = model.lives(), _operator_pod()
    with called(model) as address, Load(address, expected):
        helm("upgrade", "stageline", str(CHART), "--namespace", SYSTEM, "--reset-then-reuse-values",
             "--set", "operator.workers=3", "--wait", "--timeout=120s")  # fmt: skip
        assert _operator_pod() != operator
        model.settle(pipelines=2)
    assert model.lives() == before


@needs("NODE_PARTITION", "NODE_HEAL")
def test_a_node_is_cut_off_and_comes_back(model, expected):
    away = _move_a_stage_away(model)
    node_command("NODE_PARTITION", away)
    try:
        until(lambda: not _node_is_ready(away), f"{away} being not ready", NODE_SECONDS)
        until(lambda: _all_elsewhere(model, away), f"the model serving without {away}",
              NODE_SECONDS)  # fmt: skip
        answers(model, expected)
    finally:
        node_command("NODE_HEAL", away)
    until(lambda: _node_is_ready(away), f"{away} being ready", NODE_SECONDS)
    model.settle(pipelines=2)
    until(lambda: not _pods_on_their_way_out(), "the end of what was cut off", NODE_SECONDS)
    answers(model, expected)


@needs("NODE_KILL")
def test_a_node_dies_and_the_model_is_whole_on_the_others(model, expected):
    away = _move_a_stage_away(model)
    kept = {key: life_of(pod) for key, pod in model.pods().items() if _node_of(pod) != away}
    node_command("NODE_KILL", away)
    until(lambda: _all_elsewhere(model, away), f"the model serving without {away}", NODE_SECONDS)
    model.settle(pipelines=2)
    answers(model, expected)
    kubectl("delete", "node", away)  # as who looks after it does: the cluster forgets its pods
    lives = model.lives()
    assert {key: lives[key] for key in kept} == kept, "a stage of another node was touched"


def test_nothing_is_left_of_a_deleted_model(model):
    model.kubectl("delete", "pld", model.name, "--timeout=60s")
    until(lambda: not model.left(), "the end of all that it owned", 180)


def test_helm_uninstalls_all_but_the_crd():
    helm("uninstall", "stageline", "--namespace", SYSTEM, "--wait", "--timeout=120s")
    labels = "app.kubernetes.io/part-of=stageline"
    kinds = "deployments,services,serviceaccounts,networkpolicies,clusterroles,clusterrolebindings"
    found = items(kinds, "--all-namespaces", "--selector", labels)
    assert not found, [obj["metadata"]["name"] for obj in found]
    assert CRD in kubectl("get", "crd", "--output=name"), "the CRD went with the chart"


def _scale_path(model):
    group = f"/apis/stageline.dev/v1alpha1/namespaces/{MODELS}"
    return f"{group}/pipelinedeployments/{model.name}/scale"


def _autoscaler(model):
    """An autoscaler that changes nothing: two is all that it may choose."""
    target = {"apiVersion": "stageline.dev/v1alpha1", "kind": "PipelineDeployment",
              "name": model.name}  # fmt: skip
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    return {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": model.name},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 2,
                 "metrics": [{"type": "Resource", "resource": cpu}]},
    }  # fmt: skip


def _able(model):
    hpa = get("hpa", model.name, "--namespace", MODELS)
    able = condition_of(hpa, "AbleToScale")
    return able if able["status"] else None


def _is_gone(model, uid):
    return all(pod["metadata"]["uid"] != uid for pod in model.all_pods("stage"))


def _operator_pod():
    (pod,) = items("pods", "--namespace", SYSTEM,
                   "--selector=app.kubernetes.io/name=stageline-operator")  # fmt: skip
    return pod["metadata"]["uid"]


def _node_of(pod):
    return pod["spec"].get("nodeName", "")


def _node_is_ready(name):
    return condition_of(get("node", name), "Ready")["status"] == "True"


def _move_a_stage_away(model):
    """The last node, which then has a stage and not the cluster's only way to be asked."""
    *others, away = nodes()
    assert others, "a node can be taken away only where there are two"
    if not any(_node_of(pod) == away for pod in model.pods().values()):
        for node in others:
            kubectl("cordon", node)
        try:
            *_, pod = model.pods().values()
            model.kubectl("delete", "pod", pod["metadata"]["name"])
            model.settle(pipelines=2)
        finally:
            for node in others:
                kubectl("uncordon", node)
    return away


def _all_elsewhere(model, away):
    """All stages and a router are on other nodes, and every ring turns."""
    routers = [pod for pod in model.all_pods("router") if _node_of(pod) != away]
    pods = model.pods().values()
    return (
        len(pods) == 4
        and all(_node_of(pod) not in ("", away) for pod in pods)
        and any(condition_of(pod, "Ready")["status"] == "True" for pod in routers)
        and model.condition("Ready")["status"] == "True"
    )


def _pods_on_their_way_out():
    spaces = [*items("pods", "--namespace", MODELS), *items("pods", "--namespace", SYSTEM)]
    return [pod for pod in spaces if pod["metadata"].get("deletionTimestamp")]
