"""The leader's thread that takes decisions: events in, the pure `Sessions` decides, done here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from stageline.v1 import pipeline_pb2 as pb
from stageline_api.documents import StageDocument
from stageline_wire.logs import log
from stageline_worker.leader.board import Board
from stageline_worker.leader.desk import Desk
from stageline_worker.leader.tracing import Tracing
from stageline_worker.microbatch import Microbatch
from stageline_worker.ring.sessions import (
    Action,
    Admit,
    Canary,
    Close,
    Drop,
    Heard,
    Loading,
    Open,
    Phase,
    Sessions,
)
from stageline_worker.timing import Timing

_TICK = 0.05
_LOADING = {
    pb.STARTING: Loading.STARTING,
    pb.LOADING: Loading.LOADING,
    pb.LOADED: Loading.LOADED,
    pb.SERVING: Loading.LOADED,
    pb.DRAINING: Loading.LEAVING,
    pb.FAILED: Loading.FAILED,
}
Event = Callable[[float], list[Action]]
Mail = SimpleQueue["pb.LeaderMessage | str | None"]
"""What goes to one worker; a sentence refuses it, None hangs up."""


class Coordinator:
    """Owns the sessions of one pipeline. Other threads post to it."""

    def __init__(
        self, document: StageDocument, incarnation: int, desk: Desk, board: Board, timing: Timing
    ) -> None:
        self.tracing = Tracing()
        self._document = document
        self._desk = desk
        self._board = board
        self._sessions = Sessions(document.pipeline, document.stages, incarnation, timing)
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._mail: dict[int, tuple[int, Mail]] = {}
        self._drain_seconds = timing.drain
        self._canary: Microbatch | None = None
        self._thread = threading.Thread(target=self._run, name="coordinator", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def loaded(self, canary: Microbatch) -> None:
        """The leader has its layers, and so a canary to send."""
        self._canary = canary

    def objection(self, report: pb.WorkerReport) -> str | None:
        """Why a worker may not attach, a sentence; None when it may."""
        mine = self._document
        if report.stage >= mine.stages:
            return f"{mine.pipeline} has {mine.stages} stages, there is no stage {report.stage}"
        if (report.plan_hash, report.revision) != (mine.plan_hash, mine.revision):
            return (
                f"stage {report.stage} has plan {report.plan_hash} of revision {report.revision}, "
                f"{mine.pipeline} has plan {mine.plan_hash} of revision {mine.revision}"
            )
        return None

    def attach(self, report: pb.WorkerReport, mail: Mail) -> None:
        """A worker is here; what the leader tells it goes into `mail`."""

        def event(now: float) -> list[Action]:
            if reason := self._sessions.occupied(report.stage, report.incarnation, now):
                log("attach_refused", stage=report.stage, host=report.host, reason=reason)
                mail.put(reason)
                return []
            before = self._mail.pop(report.stage, None)
            actions = self._sessions.attach(report.stage, report.incarnation, now)
            if before is not None:
                before[1].put(None)
            self._mail[report.stage] = (report.incarnation, mail)
            log("attached", stage=report.stage, host=report.host)
            return actions

        self._events.put(event)
        self.heard(report)

    def refuse(self, report: pb.WorkerReport, reason: str) -> None:
        """A worker was not let in: say so where people look."""
        log("attach_refused", stage=report.stage, host=report.host, reason=reason)
        self._events.put(lambda now: self._sessions.refuse(report.stage, reason))

    def heard(self, report: pb.WorkerReport) -> None:
        """A worker's report came."""

        def event(now: float) -> list[Action]:
            if self._mail.get(report.stage, (0, None))[0] == report.incarnation:
                self._board.stage(report)
            heard = Heard(
                _LOADING.get(report.state, Loading.STARTING),
                report.last_sequence if report.session == self._sessions.session else 0,
                report.loaded_bytes,
                report.total_bytes,
                report.error,
            )
            return self._sessions.heard(report.stage, report.incarnation, heard, now)

        self._events.put(event)

    def detach(self, stage: int, incarnation: int, mail: Mail, reason: str) -> None:
        """A control stream is over."""

        def event(now: float) -> list[Action]:
            if self._mail.get(stage, (0, None))[1] is not mail:
                return []
            del self._mail[stage]
            self._board.gone(stage)
            log("detached", stage=stage, reason=reason)
            return self._sessions.detach(stage, incarnation, reason, now)

        self._events.put(event)

    def ready(self, stage: int, session: int) -> None:
        self._events.put(lambda now: self._sessions.ready(stage, session, now))

    def broken(self, session: int, stage: int, reason: str) -> None:
        self._events.put(lambda now: self._sessions.broken(session, stage, reason, now))

    def trace(self, spans: int) -> list[pb.StageTrace]:
        """What each stage did of late: its newest `spans`, 0 for all. Waits for their answers."""

        def ask(question: pb.AskTrace) -> None:
            def event(now: float) -> list[Action]:
                self.tracing.asked(question.id, self._mail)
                self._post(pb.LeaderMessage(trace=question))
                return []

            self._events.put(event)

        return self.tracing.gather(ask, spans)

    def drain(self) -> None:
        """Accept nothing, finish what can be finished in time, end the session."""
        self._desk.drain()
        self._events.put(lambda now: self._sessions.drain(now))
        deadline = time.monotonic() + self._drain_seconds
        while self._desk.pending and self._sessions.session and time.monotonic() < deadline:
            time.sleep(_TICK)
        self._events.put(
            lambda now: self._sessions.end(f"{self._document.pipeline} is stopping", now)
        )
        self._events.put(None)
        self._thread.join(2.0)
        self._desk.abandon(f"{self._document.pipeline} is stopping")

    def _run(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=_TICK)
            except Empty:
                event = _nothing
            now = time.monotonic()
            if event is None:
                break
            self._perform(event(now))
            self._tick(now)
        for _, mail in self._mail.values():
            mail.put(None)

    def _tick(self, now: float) -> None:
        self._perform(self._sessions.tick(now))
        if (late := self._desk.overdue(now)) is not None:
            self._perform(self._sessions.overdue(*late, now))
        message = self._message(now)
        if self._sessions.phase is not Phase.READY:
            self._desk.expire(now, message)
        self._board.publish(self._sessions, message, self._desk.load, now)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Open(session, incarnations):
                    log("session_opened", session=session)
                    self._post(
                        pb.LeaderMessage(
                            open=pb.OpenSession(
                                session=session,
                                plan_hash=self._document.plan_hash,
                                revision=self._document.revision,
                                incarnations=incarnations,
                            )
                        )
                    )
                case Canary(session):
                    self._send_canary(session)
                case Admit(session):
                    log("session_ready", session=session, canary=self._sessions.canary_seconds)
                    self._desk.admit()
                case Close(session, reason):
                    self._post(
                        pb.LeaderMessage(close=pb.CloseSession(session=session, reason=reason))
                    )
                    ended = self._desk.close(reason)
                    log("session_ended", session=session, requests=ended, reason=reason)
                case Drop(stage, incarnation):
                    if stage in self._mail and self._mail[stage][0] == incarnation:
                        self._mail.pop(stage)[1].put(None)
                        self._board.gone(stage)

    def _send_canary(self, session: int) -> None:
        assert self._canary is not None
        began = time.monotonic()

        def back(error: str | None) -> None:
            seconds = time.monotonic() - began
            self._events.put(
                lambda now: (
                    self._sessions.returned(session, seconds, now)
                    if error is None
                    else self._sessions.end(f"the canary failed: {error}", now)
                )
            )

        self._desk.begin(session, self._canary, back)

    def _post(self, message: pb.LeaderMessage) -> None:
        for _, mail in self._mail.values():
            mail.put(message)

    def _message(self, now: float) -> str:
        """Why the pipeline is not ready, a sentence; empty when it is."""
        sessions, name = self._sessions, self._document.pipeline
        if sessions.phase is Phase.READY:
            return ""
        if sessions.phase is Phase.DRAINING:
            return f"{name} is draining: {self._desk.pending} requests to finish"
        waits = sessions.missing(now) or "a session is being formed"
        return f"{waits}; the last one ended: {sessions.ended}" if sessions.ended else waits


def _nothing(now: float) -> list[Action]:
    return []
