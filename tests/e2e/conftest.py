"""One installation, on which the tests of this folder follow each other in their order."""

import sys
from pathlib import Path

import pytest
import yaml

from e2e import hands
from e2e.clients import MAX_TOKENS, PROMPT
from e2e.cluster import helm, items, kubectl, missing, until
from e2e.deployment import Deployment
from e2e.images import images as images_of_tree

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "examples" / "models" / "tiny-llama"
SAMPLE = ROOT / "manifests" / "samples" / "decoder.yaml"
CHART = ROOT / "charts" / "stageline"
SYSTEM = "stageline-e2e-system"
MODELS = "stageline-e2e"
CRD = "pipelinedeployments.stageline.dev"
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
_durations = []


def pytest_configure():
    if lack := missing():
        raise pytest.UsageError(lack)
    if there := kubectl("get", "crd", CRD, "--ignore-not-found", "--output=name"):
        words = "make e2e installs Stageline, and this cluster has it already"
        raise pytest.UsageError(f"{words}: {there.strip()}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call" or report.failed:
        _durations.append((item.name, report.duration, report.outcome))
    if report.failed:
        report.sections.append(("The cluster", _state()))
    return report


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("on nodes")
    for name, seconds, outcome in _durations:
        words = name.removeprefix("test_").replace("_", " ")
        terminalreporter.write_line(f"{seconds:7.1f} s  {outcome:8}{words}")
    total = sum(seconds for _, seconds, _ in _durations)
    terminalreporter.write_line(f"{total:7.1f} s  in all")


@pytest.fixture(scope="session")
def images():
    """The images of this working tree."""
    return images_of_tree()


@pytest.fixture(scope="session", autouse=True)
def cleaned_up():
    """Nothing is left of a run, however it went."""
    yield
    if kubectl("get", "crd", CRD, "--ignore-not-found", "--output=name"):
        kubectl("delete", "pld", "--all", "--namespace", MODELS, "--timeout=60s")
    until(lambda: not items("pods", "--namespace", MODELS), "the end of the pods", 60)
    helm("uninstall", "stageline", "--namespace", SYSTEM, "--ignore-not-found", "--wait")
    hands.remove()
    spaces = ("namespace", SYSTEM, MODELS, hands.NAMESPACE)
    kubectl("delete", *spaces, "--ignore-not-found", "--wait=false")
    kubectl("delete", "pv", MODELS, "--ignore-not-found", "--wait=false")
    kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=60s")


@pytest.fixture(scope="session")
def model():
    """The sample, wherever it is in its life."""
    return Deployment(MODELS, "tiny-llama")


@pytest.fixture(scope="session")
def expected():
    """The prompt, and what the uncut model writes behind it."""
    sys.path.insert(0, str(ROOT / "examples"))
    import uncut

    return PROMPT + uncut.greedy_text(CHECKPOINT, PROMPT, MAX_TOKENS)


def restricted_namespace(name):
    """A namespace in which only pods run that pass `restricted`."""
    body = {"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": _RESTRICTED}}  # fmt: skip
    kubectl("apply", "-f", "-", fed=yaml.safe_dump(body))


def _state():
    """What somebody would look at who has to find out."""
    asked = (
        ("get", "pods", "--all-namespaces", "--output=wide"),
        ("describe", "pld", "--namespace", MODELS),
        ("get", "events", "--namespace", MODELS, "--sort-by=.lastTimestamp"),
        ("logs", "deployment/stageline", "--namespace", SYSTEM, "--tail=40"),
        ("logs", "--namespace", MODELS, "--selector=stageline.dev/deployment", "--tail=15",
         "--prefix", "--ignore-errors"),
    )  # fmt: skip
    told = []
    for arguments in asked:
        try:
            said = kubectl(*arguments)
        except Exception as error:  # the state is told as far as it can be
            said = str(error)
        told.append(f"$ kubectl {' '.join(arguments)}\n{said[-6000:]}")
    return "\n".join(told)
