"""A Kubernetes cluster as kubectl and helm see it, and the fault commands that it came with."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Object = dict[str, Any]
T = TypeVar("T")
COMMAND_SECONDS = 120.0


def program(name: str) -> str | None:
    """Where kubectl or helm is: beside this Python, on PATH, or in KUBEBUILDER_ASSETS."""
    places = (Path(sys.executable).parent, os.environ.get("PATH", ""),
              os.environ.get("KUBEBUILDER_ASSETS", ""))  # fmt: skip
    return shutil.which(name, path=os.pathsep.join(map(str, places)))


def missing() -> str:
    """What a run on nodes lacks, a sentence; empty when nothing is missing."""
    if program("helm") is None:
        return "make e2e needs helm: put it on PATH"
    asked = subprocess.run(
        [str(program("kubectl")), "get", "nodes", "--request-timeout=10s", "--output=name"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if asked.returncode == 0 and asked.stdout:
        return ""
    where = os.environ.get("KUBECONFIG") or "~/.kube/config (KUBECONFIG is not set)"
    lines = asked.stderr.strip().splitlines()
    why = lines[-1] if lines else "it has no nodes"
    return f"make e2e needs a Kubernetes cluster: that of {where} cannot be used: {why}"


def run(*command: str, fed: str | bytes | None = None, seconds: float = COMMAND_SECONDS) -> str:
    """What the command prints; AssertionError with what it complains of."""
    given = fed.encode() if isinstance(fed, str) else fed
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode()[-4000:]
        raise AssertionError(f"{shlex.join(command)} took over {seconds:g} s: {said}") from None
    complaint = (done.stderr or done.stdout).decode()[-4000:]
    assert done.returncode == 0, f"{shlex.join(command)} failed ({done.returncode}): {complaint}"
    return done.stdout.decode()


def kubectl(*arguments: str, fed: str | bytes | None = None) -> str:
    """What kubectl says."""
    return run(str(program("kubectl")), *arguments, fed=fed)


def helm(*arguments: str, fed: str | None = None) -> str:
    """What helm says."""
    return run(str(program("helm")), *arguments, fed=fed, seconds=300)


def get(*arguments: str) -> Any:
    """What `kubectl get` has."""
    return json.loads(kubectl("get", *arguments, "--output=json"))


def items(*arguments: str) -> list[Object]:
    """The objects of `kubectl get`."""
    found: list[Object] = get(*arguments)["items"]
    return found


def until(condition: Callable[[], T], what: str, seconds: float = 120.0) -> T:
    """The first true value of the condition; AssertionError says what did not come true.

    Who asks while an API server or a node is away is refused, and asks again.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            value: T | str = condition()
        except AssertionError as error:
            value, last = "", f": {error}"
        else:
            last = ""
        if value:
            return value  # type: ignore[return-value]
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds:g} s{last}"
        time.sleep(0.3)


def node_command(variable: str, node: str) -> None:
    """Do to a node what the variable's command does."""
    run(*shlex.split(os.environ[variable]), node)


def nodes() -> list[str]:
    """The nodes that take pods, by name; those of a control plane only when there are no others."""
    found = [node for node in items("nodes") if not node["spec"].get("unschedulable")]
    role = "node-role.kubernetes.io/control-plane"
    workers = [node for node in found if role not in node["metadata"]["labels"]] or found
    return sorted(node["metadata"]["name"] for node in workers)


def condition_of(obj: Object, kind: str) -> Object:
    """A condition of an object; one without status when there is none."""
    told = (obj.get("status") or {}).get("conditions") or ()
    return next((one for one in told if one["type"] == kind), {"type": kind, "status": ""})
