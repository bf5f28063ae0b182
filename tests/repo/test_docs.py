"""What the documents say is held against what there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from stageline_api.manifest import read_manifest
from stageline_cli.main import app

ROOT = Path(__file__).resolve().parents[2]
KIND = "PipelineDeployment"
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
    if ".venv" not in page.parts
)
MANIFESTS = sorted([*ROOT.glob("manifests/samples/*.yaml"), *ROOT.glob("examples/*.yaml")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_every_manifest_is_valid(manifest):
    assert read_manifest(manifest.read_text(), manifest.name).metadata.name


def test_what_stands_beside_the_samples_is_valid_and_fits_them():
    folder = ROOT / "manifests" / "samples"
    beside = [
        obj for path in folder.glob("*/*.yaml") for obj in yaml.safe_load_all(path.read_text())
    ]
    for obj in beside:
        kubernetes_validate.validate(obj, "1.37", strict=True)
    kinds = {obj["kind"]: obj for obj in beside}
    served = {read_manifest(path.read_text(), path.name).metadata.name for path in MANIFESTS}
    assert kinds["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] in served
    (container,) = kinds["Pod"]["spec"]["containers"]
    assert container["image"] == f"stageline-worker:{version('stageline')}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def in_pages(finds: Callable[[Path], Iterable[str]]) -> list[Any]:
    """What is found in each page that has any, as a test's parameter."""
    return [
        pytest.param(page, found, id=str(page.relative_to(ROOT)))
        for page in PAGES
        if (found := list(finds(page)))
    ]


def manifests_of(page: Path) -> Iterable[str]:
    return (b for b in blocks(page, "yaml") if yaml.safe_load(b).get("kind") == KIND)


def targets_of(page: Path) -> Iterable[str]:
    return map(
        "".join, re.findall(r"`make ([a-z0-9-]+)`|^make ([a-z0-9-]+)", page.read_text(), re.M)
    )


def test_what_the_architecture_names_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules, folders = re.findall(r"`(\w+\.py)`", text), re.findall(r"^(\w[\w/]*/)  ", text, re.M)
    assert modules
    assert folders
    there = {path.name for part in ("operator", "worker") for path in (ROOT / part).rglob("*.py")}
    assert set(modules) <= there, f"there is no {set(modules) - there}"
    lacking = [folder for folder in folders if not (ROOT / folder).is_dir()]
    assert not lacking, f"there is no {lacking}"


@pytest.mark.parametrize(("page", "manifests"), in_pages(manifests_of))
def test_every_manifest_in_a_page_is_valid(page, manifests):
    for manifest in manifests:
        assert read_manifest(manifest, page.name).metadata.name


@pytest.mark.parametrize(("page", "names"), in_pages(targets_of))
def test_every_make_target_in_a_page_exists(page, names):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    for name in names:
        assert name in targets, f"{page.name} names make {name}, which the Makefile does not have"


def test_every_command_in_the_readme_has_the_options_it_is_shown_with():
    shown = "".join(blocks(ROOT / "README.md", "console") + blocks(ROOT / "README.md", "sh"))
    commands = re.findall(r"^\$? ?(?:\.venv/bin/)?stageline (\w+)(.*)$", shown, re.M)
    assert commands, "the README shows no command"
    for command, rest in commands:
        told = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert told.exit_code == 0, f"README shows stageline {command}: {told.output}"
        for option in re.findall(r"(?<=\s)(--?[a-z][a-z-]*)", rest):
            assert option in told.output, f"stageline {command} has no option {option}"
