"""The commands of the quickstart, as far as they can be checked without a cluster."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from stageline_api.manifest import read_manifest
from stageline_cli.main import app
from stageline_operator import labels

ROOT = Path(__file__).resolve().parents[2]
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("quickstart.md", "install.md")}
HEREDOC = re.compile(r"<<'(\w+)'\n(.*?)^\1$", re.M | re.S)


def blocks(text: str) -> str:
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S))


def commands(page: str) -> list[list[str]]:
    """Each command as its words, without what a heredoc gives it."""
    text = HEREDOC.sub("", blocks(PAGES[page])).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


COMMANDS = [command for page in PAGES for command in commands(page)]


def flags(command: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in command if re.match(r"--?[a-z]", word)]


@cache
def help_of(*program: str) -> str:
    told = subprocess.run(program, capture_output=True, text=True, check=False, timeout=30)
    return told.stdout + told.stderr


def named(program: str) -> list[list[str]]:
    return [command for command in COMMANDS if Path(command[0]).name == program]


def test_there_is_every_step():
    said = [" ".join(command) for command in commands("quickstart.md")]
    for step in (
        "kind create", "make images", "helm install", "kubectl apply", "kubectl wait",
        ".venv/bin/stageline generate", "kubectl scale", "helm upgrade", "helm uninstall",
    ):  # fmt: skip
        assert any(line.startswith(step) for line in said), f"the quickstart has no {step}"


@pytest.mark.parametrize("command", named("stageline"), ids=" ".join)
def test_the_command_line_has_what_is_shown(command):
    told = CliRunner().invoke(app, [command[1], "--help"], env={"COLUMNS": "200"}).output
    for flag in flags(command[2:]):
        assert flag in told, f"stageline {command[1]} has no {flag}"


@pytest.mark.parametrize("command", named("kubectl"), ids=" ".join)
def test_kubectl_has_what_is_shown(command):
    program = str(Path(sys.executable).with_name("kubectl"))
    plain = next(word for word in command[1:] if not word.startswith("-") and "system" not in word)
    deeper = ["secret", "generic"] if command[1:3] == ["create", "secret"] else []
    status = ["status"] if plain == "rollout" else []
    told = help_of(program, plain, *deeper, *status, "--help") + help_of(program, "options")
    for flag in flags(command):
        assert re.search(rf"(?<![\w-]){flag}\b", told), f"kubectl {plain} has no {flag}"


@pytest.mark.parametrize("command", named("helm"), ids=" ".join)
def test_the_chart_has_the_values_that_are_set(command):
    values = yaml.safe_load((ROOT / "charts/stageline/values.yaml").read_text())
    for flag, word in pairwise(command):
        if flag == "--set":
            place: Any = values
            for name in word.partition("=")[0].split("."):
                assert name in place, f"the chart has no value {word.partition('=')[0]}"
                place = place[name]


def test_files_and_variables_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text()
    for command in COMMANDS:
        for word in command:
            if re.match(r"(charts|manifests|examples|docs)/", word):
                assert (ROOT / word).exists(), f"there is no {word}"
            if command[0] == "make" and re.match(r"[A-Z_]+=", word):
                name = word.partition("=")[0]
                assert re.search(rf"^{name} \?=|ARG {name}", makefile, re.M), f"make has no {name}"


def test_images_have_the_version_of_the_project():
    for command in COMMANDS:
        for word in command:
            if found := re.search(r"stageline-(?:operator|router|worker):(\S+)", word):
                assert found[1] == version("stageline"), f"{word} is of another version"


@pytest.mark.parametrize("page", PAGES)
def test_manifests_are_valid_and_so_are_patches_of_them(page):
    known: dict[str, dict[str, Any]] = {}
    for _, text in HEREDOC.findall(blocks(PAGES[page])):
        manifest = yaml.safe_load(text)
        assert manifest["kind"]
        if manifest["kind"] == "PipelineDeployment":
            known[read_manifest(text, page).metadata.name] = manifest
    for command in commands(page):
        if command[:2] == ["kubectl", "apply"] and command[-1].startswith("manifests/samples/"):
            manifest = yaml.safe_load((ROOT / command[-1]).read_text())
            known[manifest["metadata"]["name"]] = manifest
        if command[:2] == ["kubectl", "patch"]:
            patched = merged(known[command[3]], json.loads(command[-1]))
            read_manifest(yaml.safe_dump(patched), page)


def merged(there: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(there, dict):
        return patch
    return there | {key: merged(there.get(key), value) for key, value in patch.items()}


def test_selectors_are_of_labels_that_there_are():
    known = {value for value in vars(labels).values() if isinstance(value, str)}
    for command in named("kubectl"):
        for flag, word in pairwise(command):
            if flag == "--selector":
                assert {part.partition("=")[0] for part in word.split(",")} <= known
