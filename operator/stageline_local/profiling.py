"""Profile a model: the worker reads its config and safetensors headers, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from pydantic import ValidationError

from stageline_api.profile import ModelProfile

DEADLINE_SECONDS = 300.0
_WORKER_NEEDS = ("torch", "transformers", "safetensors")


class ProfileError(Exception):
    """The model cannot be profiled; the message is the sentence that says why."""


def profile_model(uri: str) -> ModelProfile:
    """What the model at `uri` weighs, unit by unit; ProfileError when that cannot be known."""
    missing = [name for name in _WORKER_NEEDS if find_spec(name) is None]
    if missing:
        raise ProfileError(
            f"a model cannot be profiled without the worker ({', '.join(missing)} not installed): "
            "pip install 'stageline[worker]'"
        )
    command = [sys.executable, "-m", "stageline_worker", "profile", uri]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=DEADLINE_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ProfileError(f"profiling {uri} took longer than {DEADLINE_SECONDS:.0f} s") from None
    if done.returncode != 0:
        raise ProfileError(_last_line(done.stderr) or f"profiling {uri} failed without a word")
    try:
        return ModelProfile.model_validate_json(done.stdout)
    except ValidationError as error:
        raise ProfileError(
            f"the worker's profile of {uri} is not one ({error.error_count()} fields are wrong): "
            "install worker and command line in the same version"
        ) from None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
