"""The operator as a process that is watched: its CPU, its memory, and what it counts itself."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cost import cpu_seconds
from prometheus_client.parser import text_string_to_metric_families

_READ: Final = "GET"
_TURN: Final = "leases"
"""By which operators take turns, every few seconds, whatever they look after."""
_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0

Calls = Counter[tuple[str, str]]
"""Requests to the API server by verb and kind (plural)."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A running operator."""

    process: subprocess.Popen[bytes]
    url: str

    def cpu(self) -> float:
        """Seconds of CPU that it has used in its life."""
        return cpu_seconds(self.process.pid)

    def peak_bytes(self) -> int:
        """The most memory that it has held (resident)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def calls(self) -> Calls:
        """Requests to the API server until now, watches apart."""
        return read_calls(self._metrics())

    def resources_ready(self) -> int:
        """As the operator counts them."""
        return int(_value(self._metrics(), "stageline_resources_ready"))

    def reconciles(self) -> int:
        """Decisions until now."""
        return int(_value(self._metrics(), "stageline_reconcile_total"))

    def _metrics(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            return str(answer.read().decode())


@contextlib.contextmanager
def operating(arguments: Sequence[str], log: Path) -> Iterator[Operator]:
    """The operator with these arguments, ready; it is stopped when the block ends."""
    port = _free_port()
    command = [
        sys.executable, "-m", "stageline_operator", "--health-host", "127.0.0.1",
        "--health-port", str(port), *arguments,
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        operator = Operator(process, f"http://127.0.0.1:{port}")
        _wait_ready(operator, log)
        yield operator
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> float:
    """Seconds from SIGTERM to its end; SystemExit when it does not end well."""
    if process.poll() is not None:
        return 0.0
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise SystemExit(f"the operator did not stop in {_STOP_SECONDS:g} s") from None
    if code != 0:
        raise SystemExit(f"the operator ended with status {code}")
    return time.monotonic() - began


def writes(calls: Calls) -> int:
    """How many of the calls could change something."""
    return sum(number for (verb, _), number in calls.items() if verb != _READ)


def read_calls(text: str) -> Calls:
    """The requests to the API server that an operator's metrics count, those for its turn apart."""
    counted: Calls = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            about = sample.labels.get("kind")
            if sample.name == "stageline_api_requests_total" and about != _TURN:
                counted[sample.labels["verb"], sample.labels["kind"]] += int(sample.value)
    return counted


def _value(text: str, name: str) -> float:
    samples = (s for f in text_string_to_metric_families(text) for s in f.samples)
    return sum(sample.value for sample in samples if sample.name == name)


def _wait_ready(operator: Operator, log: Path) -> None:
    until = time.monotonic() + _READY_SECONDS
    while not _answers(f"{operator.url}/readyz"):
        if operator.process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"the operator did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
