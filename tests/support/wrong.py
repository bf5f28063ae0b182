"""Manifests that must be refused, what is wrong with each, and the words that must say so.

A change is laid over BASE as a merge patch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

BASE = """\
apiVersion: stageline.dev/v1alpha1
kind: PipelineDeployment
metadata: {name: llama}
spec:
  model: {uri: "hf://meta-llama/Llama-3.1-8B@main"}
"""


@dataclass(frozen=True)
class Wrong:
    """A manifest that nobody may take."""

    what: str
    change: str
    words: str
    by_server: bool = True
    """Whether the API server refuses it; the operator does, by a condition, what it lets in."""

    @property
    def field(self) -> str:
        """The field that every refusal must name, as far as all name it alike."""
        (name,) = re.findall(r"^(?:a name in )?(?:metadata\.)?([\w.]+)", self.words)
        return re.sub(r"\.(limits|requests|nodeSelector|labels)\.\w+$", r".\1", name)


@dataclass(frozen=True)
class Later:
    """A manifest that looks right until the model and the cluster are known."""

    what: str
    change: str
    reason: str
    words: str


@dataclass(frozen=True)
class Change:
    """Two manifests, of which the second may not follow the first."""

    what: str
    before: str
    after: str
    words: str


def manifest(*changes: str) -> dict[str, Any]:
    """BASE with `changes` laid over it."""
    made = yaml.safe_load(BASE)
    for change in changes:
        made = _merged(made, yaml.safe_load(change))
    assert isinstance(made, dict)
    return made


def _merged(base: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    made = dict(base) if isinstance(base, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = _merged(made.get(name), value)
    return made
