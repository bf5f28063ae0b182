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
from pathlib import Path
from typing import Any, TextIO

import grpc

from stageline.v1 import pipeline_pb2
from stageline.v1.pipeline_pb2_grpc import PipelineStub
from stageline_local.ports import free_ports

START_SECONDS = 120.0
REPORT_SECONDS = 20.0
STOP_SECONDS = 30.0


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
        """The table of the plan, as printed before anything is started."""
        self._wait_for("slowest stage")
        end = next(i for i, line in enumerate(self._lines) if line.startswith("slowest stage"))
        return [line.rstrip() for line in self._lines[: end + 1]]

    def wait_until_ready(self) -> None:
        """Return when a canary microbatch went round the ring and the router says so."""
        self._wait_for(f"{self.model} is ready at")

    def report(self) -> Any:
        """The leader's PipelineReport, once every stage has told what it has computed."""
        leader = self._documents()[-1]["pipelines"][0]["leader"]
        with grpc.insecure_channel(leader) as channel:
            reports = PipelineStub(channel).Watch(
                pipeline_pb2.WatchRequest(), timeout=REPORT_SECONDS
            )
            try:
                return next(report for report in reports if _has_computed(report))
            except (grpc.RpcError, StopIteration):
                raise Wrong(
                    f"{self.model}: its leader does not report what its stages do"
                ) from None

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
        for document in self._documents():
            if _listens(document["listen"]):
                raise Wrong(f"a process of {self.model} still listens at {document['listen']}")

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

    def _wait_for(self, start: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not any(line.startswith(start) for line in self._lines):
            try:
                line = self._coming.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Wrong(
                    f"{self.model} did not say {start!r} in {START_SECONDS:.0f} s{self._tail()}"
                ) from None
            if line is None:
                raise Wrong(f"stageline up {self.model} ended before its time{self._tail()}")
            self._lines.append(line)

    def _read(self, output: TextIO) -> None:
        for line in output:
            self._coming.put(line.rstrip("\n"))
        self._coming.put(None)

    def _tail(self) -> str:
        return "".join(f"\n  | {line}" for line in self._lines[-8:])

    def _documents(self) -> list[dict[str, Any]]:
        """What its processes were started with: the stages in order, the router last."""
        files = sorted((self._state / self.model).glob("*.json"), key=_router_last)
        return [json.loads(file.read_text()) for file in files]


def _has_computed(report: Any) -> bool:
    return all(stage.microbatches and stage.compute_seconds for stage in report.stages)


def _router_last(file: Path) -> tuple[bool, str]:
    return file.stem.endswith("-router"), file.name


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, int(port))) == 0
