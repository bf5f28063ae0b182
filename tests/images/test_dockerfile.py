"""What the Dockerfile says twice, or the operator says as well, is the same."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from stageline_operator.render.patching import KUBERNETES
from support.rendered import container, rendered

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
TARGETS = ("operator", "router", "worker")


def stage(name):
    """The lines of one build stage, continued lines joined."""
    text = DOCKERFILE.replace("\\\n", "")
    (found,) = re.findall(rf"^FROM (\S+) AS {name}\n(.*?)(?=^FROM|\Z)", text, re.M | re.S)
    return found[0], re.sub(r" +", " ", found[1])


def entrypoint(target):
    return json.loads(re.findall(r"^ENTRYPOINT (.*)$", stage(target)[1], re.M)[0])


def test_images_start_what_the_operator_starts_in_pods():
    made = rendered()
    stages, profile = made.worker(), container(made.profile(), "profile")
    router = container(made.router()["spec"]["template"], "router")
    assert stages["command"] == [*entrypoint("worker"), "stage"]
    assert profile["command"] == [*entrypoint("worker"), "profile"]
    assert router["command"] == entrypoint("router")
    assert entrypoint("operator") == ["python", "-m", "stageline_operator"]


@pytest.mark.parametrize("target", TARGETS)
def test_images_run_as_nobody_and_are_tried_when_they_are_built(target):
    base, lines = stage(target)
    assert base == "runtime"
    assert re.findall(r"^USER (.*)$", stage("runtime")[1], re.M) == ["65532:65532"]
    assert "USER" not in lines
    (tried,) = re.findall(r"^RUN (.*)$", lines, re.M)
    assert json.loads(tried)[:3] == entrypoint(target)


@pytest.mark.parametrize("target", TARGETS)
def test_images_say_what_they_are(target):
    (told,) = re.findall(r"^LABEL (.*)$", stage(target)[1], re.M)
    (common,) = re.findall(r"^LABEL (.*)$", stage("runtime")[1], re.M)
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", f"{told} {common}"))
    assert labels == {"title", "description", "version", "licenses", "vendor"}


@pytest.mark.parametrize("target", TARGETS)
def test_packages_have_the_versions_of_the_lock(target):
    _, lines = stage(f"{target}-packages")
    for install in re.findall(r"^RUN (\S*pip .*install.*)$", lines, re.M):
        assert "--constraint requirements.lock" in install or "grep ^torch==" in install, install


def test_every_requirement_of_an_image_is_in_the_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line
    }  # fmt: skip
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    wanted = [*project["dependencies"], *build]
    for target in TARGETS:
        wanted += project["optional-dependencies"][target]
    missing = {Requirement(text).name.lower() for text in wanted} - locked
    assert missing == set(), f"run make lock: {missing} would be whatever is newest"


def test_only_the_worker_has_torch():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for target in ("operator", "router"):
        names = {Requirement(text).name for text in extras[target]}
        assert names.isdisjoint({"torch", "transformers"}), f"the {target}'s image would have torch"
        assert "torch" not in stage(f"{target}-packages")[1]


def test_the_operators_image_keeps_the_schemas_it_checks_against():
    assert f"! -name v{KUBERNETES}.0-local-strict " in stage("operator-packages")[1]


def test_the_installer_is_the_one_of_the_makefile():
    (version,) = re.findall(r"^export PIP_VERSION := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert f"pip=={version} " in stage("build")[1]


def test_what_builds_is_of_the_lock_too():
    installs = re.findall(r"^RUN (\S*pip (?:install|wheel).*)$", stage("code")[1], re.M)
    assert installs
    assert "--constraint requirements.lock hatchling" in installs[0]
    assert "--no-build-isolation" in installs[0], "pip would fetch the newest builder"


def test_nothing_but_what_is_installed_reaches_a_build():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert kept
    for pattern in kept:
        assert list(ROOT.glob(pattern)), f".dockerignore keeps {pattern}, which is not there"
