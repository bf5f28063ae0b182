"""The Helm chart as objects. Helm is looked for on PATH and in $KUBEBUILDER_ASSETS."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "stageline"
NAMESPACE = "stageline-system"
Object = dict[str, Any]


def helm(*arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    """What helm said, whether it liked it or not; the test is skipped when there is no helm."""
    places = os.pathsep.join((os.environ.get("PATH", ""), os.environ.get("KUBEBUILDER_ASSETS", "")))
    program = shutil.which("helm", path=places)
    if program is None:
        pytest.skip("no helm on PATH or in KUBEBUILDER_ASSETS")
    more = [] if values is None else ["--values", "-"]
    return subprocess.run(
        [program, *arguments, *more], input=yaml.safe_dump(values), text=True,
        capture_output=True, check=False, timeout=30,
    )  # fmt: skip


def rendered(values: Object | None = None) -> list[Object]:
    """All objects of the chart with these values, and of the test that it brings."""
    return list(yaml.safe_load_all(_template(yaml.safe_dump(values or {}))))


@functools.cache
def _template(values: str) -> str:
    told = helm("template", "stageline", str(CHART), "--namespace", NAMESPACE, "--include-crds",
                values=yaml.safe_load(values))  # fmt: skip
    assert told.returncode == 0, told.stderr
    return told.stdout


def of_kind(kind: str, values: Object | None = None) -> list[Object]:
    """Those of one kind."""
    return [obj for obj in rendered(values) if obj["kind"] == kind]


def named(kind: str, name: str, values: Object | None = None) -> Object:
    """The only one of this kind and name."""
    (found,) = (obj for obj in of_kind(kind, values) if obj["metadata"]["name"] == name)
    return found
