"""The tag of the images under test is of what they are made of, and of nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from e2e import images

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of all that reaches a build."""
    for name in ("BASE_IMAGE", "TORCH_INDEX", "IMAGES"):
        monkeypatch.setenv(name, name.lower())
    for path in images._inputs():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    monkeypatch.setattr(images, "ROOT", tmp_path)
    return tmp_path


def test_the_same_files_have_the_same_tag_wherever_they_are(tree, monkeypatch):
    copied = images.images().tag
    monkeypatch.setattr(images, "ROOT", ROOT)
    assert images.images().tag == copied


@pytest.mark.parametrize(
    "path", ["operator/stageline_operator/decide.py", "requirements.lock", "Dockerfile"]
)
def test_a_file_of_an_image_changes_it(tree, path):
    before = images.images().tag
    with (tree / path).open("a") as file:
        file.write("\n# changed\n")
    assert images.images().tag != before


@pytest.mark.parametrize("name", ["BASE_IMAGE", "TORCH_INDEX"])
def test_an_argument_of_the_build_changes_it(tree, monkeypatch, name):
    before = images.images().tag
    monkeypatch.setenv(name, "another")
    assert images.images().tag != before


@pytest.mark.parametrize("path", ["tests/test_more.py", "docs/more.md", "operator/README.md"])
def test_a_file_that_reaches_no_build_does_not(tree, path):
    before = images.images().tag
    (tree / path).parent.mkdir(exist_ok=True)
    (tree / path).write_text("more")
    assert images.images().tag == before
