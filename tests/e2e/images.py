"""The images under test: built when something in them has changed, loaded where nodes lack them.

Their tag is a hash of all that they are made of, so that an image of this tag, wherever it is, is
the right one.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import items, run

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("operator", "router", "worker")
_BUILD_SECONDS = 1800.0
_LOAD_SECONDS = 600.0


@dataclass(frozen=True)
class Images:
    """What `make images IMAGES=… TAG=…` makes."""

    prefix: str
    tag: str

    def name(self, target: str) -> str:
        """The image of a target, as a pod has it."""
        return f"{self.prefix}-{target}:{self.tag}"

    def values(self) -> tuple[str, ...]:
        """The chart's values for them."""
        registry, _, base = self.prefix.rpartition("/")
        named = {f"images.{target}": f"{base}-{target}" for target in TARGETS}
        told = {"images.registry": registry, "images.tag": self.tag, **named}
        return tuple(f"--set-string={key}={value}" for key, value in told.items())


def images() -> Images:
    """The images of this working tree."""
    return Images(os.environ["IMAGES"], f"e2e-{_hash()}")


def build(wanted: Images) -> bool:
    """Build those that are not there; whether any was missing."""
    if all(_is_built(wanted, target) for target in TARGETS):
        return False
    run("make", "--no-print-directory", "-C", str(ROOT), "images", f"TAG={wanted.tag}",
        seconds=_BUILD_SECONDS)  # fmt: skip
    return True


def load(wanted: Images) -> list[str]:
    """Bring to the nodes what one of them lacks: the targets that were missing."""
    there = [
        {name for image in node["status"].get("images") or () for name in image.get("names") or ()}
        for node in items("nodes")
    ]
    lacking = [t for t in TARGETS if not all(_has(names, wanted.name(t)) for names in there)]
    for target in lacking:
        run(*shlex.split(os.environ["IMAGE_LOAD"]), wanted.name(target), seconds=_LOAD_SECONDS)
    return lacking


def _has(names: set[str], image: str) -> bool:
    return any(name == image or name.endswith(f"/{image}") for name in names)


def _is_built(wanted: Images, target: str) -> bool:
    command = [*shlex.split(os.environ["IMAGE_LIST"]), wanted.name(target)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return told.returncode == 0 and wanted.tag in told.stdout


def _hash() -> str:
    """Of every file that reaches a build, and of the arguments of the build."""
    told = hashlib.sha256()
    for variable in ("BASE_IMAGE", "TORCH_INDEX"):
        told.update(f"{variable}={os.environ[variable]}\n".encode())
    for path in _inputs():
        told.update(f"{path.relative_to(ROOT)}\n".encode())
        told.update(path.read_bytes())
    return told.hexdigest()[:12]


def _inputs() -> list[Path]:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    found = [ROOT / "Dockerfile", ROOT / ".dockerignore"]
    for pattern in (line[1:] for line in ignore if line.startswith("!")):
        for kept in ROOT.glob(pattern):
            found += [kept] if kept.is_file() else [p for p in kept.rglob("*") if p.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)
