"""What a worker knows of itself, for its reports and its session checks."""

from __future__ import annotations

import secrets
import socket
import threading

from stageline.v1 import pipeline_pb2 as pb
from stageline_api.documents import StageDocument
from stageline_worker.ring.spans import Spans

_SMOOTHING = 0.1


class Facts:
    """One worker's state. Many threads write, the control stream reads.

    `touched` says that a report is due when convenient, `urgent` that it is due now.
    """

    def __init__(self, document: StageDocument) -> None:
        first, end = document.layers
        self.spans = Spans()
        self._lock = threading.Lock()
        self._report = pb.WorkerReport(
            stage=document.stage,
            incarnation=secrets.randbits(63) | 1,
            plan_hash=document.plan_hash,
            revision=document.revision,
            host=socket.gethostname(),
            state=pb.STARTING,
            first_layer=first,
            end_layer=end,
        )
        self._changed = threading.Condition(self._lock)
        self._touched = False
        self._urgent = False

    @property
    def incarnation(self) -> int:
        return self._report.incarnation

    @property
    def state(self) -> pb.WorkerState:
        return self._report.state

    def report(self) -> pb.WorkerReport:
        """A copy of all that is known now."""
        with self._lock:
            copy = pb.WorkerReport()
            copy.CopyFrom(self._report)
            self._touched = self._urgent = False
            return copy

    def update(self, *, urgent: bool = True, **fields: object) -> None:
        """Set fields of the report."""
        with self._changed:
            for name, value in fields.items():
                setattr(self._report, name, value)
            self._touch(urgent)

    def withdraw(self, error: str) -> None:
        """This is no error any more; another that came since stays."""
        with self._changed:
            if self._report.error == error:
                self._report.error = ""
                self._touch(urgent=True)

    def computed(
        self, session: int, sequence: int, seconds: float, waited: float, hop_seconds: float
    ) -> None:
        """A microbatch of the session passed this stage, which `waited` while there was work."""
        with self._changed:
            report = self._report
            step = _SMOOTHING if report.microbatches else 1.0
            report.compute_seconds += step * (seconds - report.compute_seconds)
            report.microbatches += 1
            report.busy_seconds += seconds
            report.waiting_seconds += waited
            if report.session == session:
                report.last_sequence = sequence
            report.hop_seconds = hop_seconds
            self._touch(urgent=False)

    def turning(self, serving: bool) -> None:
        """A session has begun or ended here; a worker that drains or failed stays so."""
        with self._changed:
            if serving:
                self._report.busy_seconds = self._report.waiting_seconds = 0.0
            if self._report.state in (pb.LOADED, pb.SERVING):
                self._report.state = pb.SERVING if serving else pb.LOADED
                self._touch(urgent=False)

    def poke(self) -> None:
        """Let the control stream look now."""
        with self._changed:
            self._touch(urgent=True)

    def wait(self, gap: float, beat: float) -> None:
        """Until a report is due: now when urgent, after `gap` s when touched, after `beat` s."""
        with self._changed:
            self._changed.wait_for(lambda: self._urgent or self._touched, beat)
            if self._touched and not self._urgent:
                self._changed.wait_for(lambda: self._urgent, gap)

    def _touch(self, urgent: bool) -> None:
        first = not (self._touched or self._urgent)
        self._touched = True
        if first or (urgent and not self._urgent):
            self._urgent = self._urgent or urgent
            self._changed.notify_all()
