"""One `stageline up` in a process of its own: started, waited for, looked at, stopped."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from stageline_local.ports import free_ports

START_SECONDS = 120.0
STATUS_SECONDS = 20.0
STOP_SECONDS = 30.0
STAGE = "stageline.dev/stage"  # the label that says which stage a pod is
KUBECTL = Path(sys.executable).with_name("kubectl")


class Wrong(Exception):
    """Something is not as it should be; the message is a sentence."""


class Serving:
    """A manifest that `stageline up` serves on a free port, until `stop`."""

    def __init__(self, manifest: Path, state: Path) -> None:
        self.model = manifest.stem
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self._manifest = manifest
        self._state = state
        self._process: subprocess.Popen[str] | None = None
        self._asked_to_stop = False
        self._lines: list[str] = []
        self._read_to = 0
        self._coming: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Start `stageline up` with the manifest."""
        port = self.address.rpartition(":")[2]
        options = ["--plain", "--port", port, "--state-dir", str(self._state)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stageline_cli.main", "up", str(self._manifest), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # One thread a stage, as in the uncut model beside it: the sums have one order.
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            process_group=0,  # a Ctrl-C in the terminal is the demo's, which then stops this
        )
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def plan(self) -> list[str]:
        """The table of the plan, as printed before a stage is started."""
        first = self._wait_for("stage  layers")
        last = self._wait_for("slowest stage")
        return self._lines[first : last + 1]

    def wait_until_ready(self) -> None:
        """Return when a canary microbatch went round the ring and a router answers."""
        self._wait_for(f"{self.model} is ready at")

    def until_ready_again(self) -> list[str]:
        """What was said of readiness since something broke, up to `is ready again`."""
        last = self._wait_for(f"{self.model} is ready again at", self._read_to)
        news = self._lines[self._read_to : last + 1]
        self._read_to = last + 1
        return [line for line in news if line.startswith(("Ready ", self.model + " is"))]

    def from_now(self) -> None:
        """Let `until_ready_again` pass over what was said until now."""
        self._take()
        self._read_to = len(self._lines)

    def status(self) -> str:
        """What `stageline status` prints."""
        return self._stageline("status", self.model)

    def resource(self) -> Any:
        """The resource, once every stage has told what it has computed."""
        deadline = time.monotonic() + STATUS_SECONDS
        while True:
            found = json.loads(self._stageline("status", self.model, "--output", "json"))
            stages = found.get("status", {}).get("stages", [])
            if stages and all(stage.get("computeMilliseconds") for stage in stages):
                return found
            if time.monotonic() > deadline:
                raise Wrong(f"the status of {self.model} does not tell what its stages do")
            time.sleep(0.2)

    def pods(self) -> dict[int, Any]:
        """The pod of each stage."""
        found = json.loads(self.kubectl("get", "pods", "--output", "json"))
        labelled = ((pod["metadata"]["labels"], pod) for pod in found["items"])
        return {int(labels[STAGE]): pod for labels, pod in labelled if STAGE in labels}

    def kubectl(self, *arguments: str) -> str:
        """What kubectl says, unmodified."""
        where = ("--kubeconfig", str(self._state / self.model / "kubeconfig"))
        return _output([str(KUBECTL), *where, *arguments])

    def _stageline(self, *arguments: str) -> str:
        where = ("--state-dir", str(self._state))
        return _output([sys.executable, "-m", "stageline_cli.main", *arguments, *where])

    def ask_to_stop(self) -> None:
        """Send SIGTERM, once: the router drains, then the stages go."""
        if self._process and not self._asked_to_stop:
            self._asked_to_stop = True
            self._process.terminate()

    def stop(self) -> None:
        """Stop it in order; Wrong unless it did so, and nobody listens where it listened."""
        assert self._process, "stopped, so it was started"
        self.ask_to_stop()
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Wrong(f"stageline up {self.model} did not stop in {STOP_SECONDS:.0f} s") from None
        if code != 0:
            raise Wrong(f"stageline up {self.model} ended with exit code {code}{self._tail()}")
        if _listens(self.address):
            raise Wrong(f"a process of {self.model} still listens at {self.address}")

    def close(self) -> None:
        """End it, however it is; a Ctrl-C while this waits ends it at once."""
        self.ask_to_stop()
        while self._process and self._process.poll() is None:
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
            except KeyboardInterrupt:
                self._process.terminate()  # the second makes `stageline up` kill its processes

    def _wait_for(self, start: str, since: int = 0) -> int:
        """Position of the first line since `since` that begins so."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            for position, line in enumerate(self._lines[since:], since):
                if line.startswith(start):
                    return position
            since = len(self._lines)
            self._lines.append(self._next_line(start, deadline))

    def _next_line(self, start: str, deadline: float) -> str:
        try:
            line = self._coming.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise Wrong(
                f"{self.model} did not say {start!r} in {START_SECONDS:.0f} s{self._tail()}"
            ) from None
        if line is None:
            raise Wrong(f"stageline up {self.model} ended before its time{self._tail()}")
        return line

    def _take(self) -> None:
        """Read what is there, without waiting."""
        with suppress(queue.Empty):
            while (line := self._coming.get_nowait()) is not None:
                self._lines.append(line)

    def _read(self, output: TextIO) -> None:
        for line in output:
            self._coming.put(line.rstrip())
        self._coming.put(None)

    def _tail(self) -> str:
        return "".join(f"\n  | {line}" for line in self._lines[-8:])


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=STATUS_SECONDS)
    if done.returncode != 0:
        raise Wrong(f"{' '.join(command[-4:])} failed: {done.stderr.strip()}")
    return done.stdout


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, int(port))) == 0
