"""A worker's part in sessions: it joins those its leader opens, and no others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from stageline.v1 import pipeline_pb2 as pb
from stageline_api.documents import StageDocument
from stageline_wire import Frame, FrameError
from stageline_wire.logs import log
from stageline_worker.facts import Facts
from stageline_worker.ring.messages import Hello, hello_frame, read_hello
from stageline_worker.ring.session import Session
from stageline_worker.timing import Timing
from stageline_worker.transport import Inlet, LinkError, LinkRefused, Transport

_FAREWELL = 0.5

Tell = Callable[[pb.WorkerMessage], None]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is, as a session must know it."""

    stage: int
    stages: int
    plan_hash: str
    revision: str
    incarnation: int


def objection(me: Identity, offer: pb.OpenSession) -> str | None:
    """Why this worker does not join the session, a sentence; None when it does."""
    if offer.plan_hash != me.plan_hash:
        return f"it has plan {me.plan_hash}, the session is of plan {offer.plan_hash}"
    if offer.revision != me.revision:
        return f"it has revision {me.revision}, the session is of revision {offer.revision}"
    if len(offer.incarnations) != me.stages:
        return f"it knows {me.stages} stages, the session has {len(offer.incarnations)}"
    if offer.incarnations[me.stage] != me.incarnation:
        return "the session was opened with an earlier life of it"
    return None


def stranger(me: Identity, offer: pb.OpenSession, hello: Hello) -> str | None:
    """Why this link is none of the session's, a sentence; None when it is."""
    before = (me.stage - 1) % me.stages
    if hello.stage != before:
        return f"stage {me.stage} is called by stage {before}, not by stage {hello.stage}"
    if (hello.plan_hash, hello.revision) != (me.plan_hash, me.revision):
        return f"stage {hello.stage} called with plan {hello.plan_hash} of {hello.revision}"
    if hello.incarnation != offer.incarnations[before]:
        return f"stage {hello.stage} called in another life than the session was opened with"
    return None


class Member:
    """Holds the session this worker is in. Leader messages, links and the ring meet here."""

    def __init__(self, document: StageDocument, facts: Facts, timing: Timing, tell: Tell) -> None:
        self._document = document
        self._facts = facts
        self._timing = timing
        self._tell = tell
        self._me = Identity(
            document.stage,
            document.stages,
            document.plan_hash,
            document.revision,
            facts.incarnation,
        )
        self._changed = threading.Condition()
        self._offer = pb.OpenSession()
        self._session: Session | None = None
        self._fresh = False
        self._stopped = False

    def open(self, offer: pb.OpenSession, transport: Transport) -> None:
        """The leader opens a session; the one before is over."""
        self.close("the leader opened another session")
        if reason := objection(self._me, offer):
            self._say_broken(offer.session, self._me.stage, reason)
            return
        session = Session(offer.session, lambda *end: self._say_broken(offer.session, *end))
        with self._changed:
            self._offer, self._session, self._fresh = offer, session, True
            self._changed.notify_all()
        self._facts.update(session=session.number, last_sequence=0, transport="", transport_note="")
        dial = threading.Thread(target=self._dial, args=(session, transport), name="dial")
        dial.daemon = True
        dial.start()

    def close(self, reason: str, number: int | None = None) -> None:
        """End the session, or only the one of that number."""
        with self._changed:
            session = self._session
            if session is None or number not in (None, session.number):
                return
            self._session = None
        if session.close(reason):
            log("session_closed", session=session.number, reason=reason)

    def stop(self) -> None:
        """End the session and let the ring's thread go."""
        if (session := self._session) is not None:
            session.finish(_FAREWELL)
        self.close("the worker stops")
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def next_session(self) -> Session | None:
        """Wait for a session that this has not given before; None when stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or (self._fresh and self._session))
            self._fresh = False
            return None if self._stopped else self._session

    def ready(self, session: Session) -> None:
        """Both links stand and the caches are empty."""
        self._tell(pb.WorkerMessage(ready=pb.SessionReady(session=session.number)))

    def wake(self) -> None:
        """Let the ring's thread look for work."""
        session = self._session
        if session is not None and session.inlet is not None:
            session.inlet.wake()

    def accept(self, frame: Frame, inlet: Inlet) -> None:
        """A link comes in. Raises LinkRefused when it is not of this session."""
        try:
            hello = read_hello(frame)
        except FrameError as error:
            raise LinkRefused(str(error)) from None
        deadline = time.monotonic() + self._timing.hello
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._offer.session == hello.session,
                deadline - time.monotonic(),
            )
            session, offer = self._session, self._offer
        if session is None or session.number != hello.session:
            raise LinkRefused(f"stage {self._me.stage} is not in session {hello.session}")
        if reason := stranger(self._me, offer, hello):
            raise LinkRefused(reason)
        if not session.set_inlet(inlet):
            raise LinkRefused(f"stage {self._me.stage} has its link of session {hello.session}")

    def _dial(self, session: Session, transport: Transport) -> None:
        me, after = self._me, (self._me.stage + 1) % self._me.stages
        broke = f"its link from stage {me.stage} broke"
        hello = Hello(session.number, me.plan_hash, me.revision, me.stage, me.incarnation)
        outlet = transport.dial(
            self._document.next,
            hello_frame(hello),
            lambda reason: session.broken(after, f"{broke} ({reason})"),
        )
        session.set_outlet(outlet)
        try:
            outlet.connect(self._timing.connect)
        except LinkError as error:
            session.broken(after, f"stage {me.stage} cannot link to it: {error}")
        else:
            self._facts.update(transport=outlet.transport, transport_note=outlet.note)
            session.connected()

    def _say_broken(self, session: int, stage: int, reason: str) -> None:
        log("link_broken", session=session, stage=stage, reason=reason)
        broken = pb.LinkBroken(session=session, stage=stage, reason=reason)
        self._tell(pb.WorkerMessage(broken=broken))
