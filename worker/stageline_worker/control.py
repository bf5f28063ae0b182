"""The worker's end of the control stream to its leader, kept up from its first second."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

import grpc

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_wire.credentials import Credentials
from stageline_wire.logs import log
from stageline_worker.channel import open_channel
from stageline_worker.facts import Facts
from stageline_worker.ring.member import Member
from stageline_worker.timing import Timing
from stageline_worker.transport import Transport

_FAREWELL = 2.0


class ControlClient:
    """Reports to the leader, and passes on what the leader says. Redials when it is gone."""

    def __init__(
        self, leader: str, facts: Facts, timing: Timing, credentials: Credentials | None = None
    ) -> None:
        self._leader = leader
        self._credentials = credentials
        self._facts = facts
        self._timing = timing
        self._outgoing: deque[pb.WorkerMessage] = deque()
        self._stopping = threading.Event()
        self._call: grpc.Call | None = None
        self._attached = False
        self._thread: threading.Thread | None = None

    def tell(self, message: pb.WorkerMessage) -> None:
        """Send a message; lost when the stream is down, for then its session is over too."""
        self._outgoing.append(message)
        self._facts.poke()

    def start(self, member: Member, transport: Transport) -> None:
        args = (member, transport)
        self._thread = threading.Thread(target=self._run, args=args, name="control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Say the last report, then hang up."""
        self._stopping.set()
        self._facts.poke()
        if self._thread is not None:
            self._thread.join(_FAREWELL if self._attached else 0)
            if self._call is not None:
                self._call.cancel()
            self._thread.join(_FAREWELL)

    def _run(self, member: Member, transport: Transport) -> None:
        pause = self._timing.redial
        said = ""
        while not self._stopping.is_set():
            channel = open_channel(self._leader, self._credentials)
            reason = self._attend(channel, member, transport)
            channel.close()
            was_attached, self._attached = self._attached, False
            if reason != said and not self._stopping.is_set():
                log("control_broken", leader=self._leader, reason=reason)
                said = reason
            member.close(f"the control stream to the leader broke ({reason})")
            pause = self._timing.redial if was_attached else pause * 2
            self._stopping.wait(min(pause, self._timing.redial_max))

    def _attend(self, channel: grpc.Channel, member: Member, transport: Transport) -> str:
        over = threading.Event()
        self._outgoing.clear()
        stub = services.ControlStub(channel)
        call = stub.Attach(self._messages(over))
        self._call = call
        if self._stopping.is_set() and not self._attached:
            call.cancel()
        try:
            for message in call:
                self._attached = True
                self._obey(message, member, transport)
        except grpc.RpcError as error:
            return (error.details() if isinstance(error, grpc.Call) else "") or "connection lost"
        finally:
            over.set()
            self._facts.poke()
        return "the leader closed it"

    def _messages(self, over: threading.Event) -> Iterator[pb.WorkerMessage]:
        while not over.is_set():
            while self._outgoing:
                yield self._outgoing.popleft()
            last = self._stopping.is_set()
            yield pb.WorkerMessage(report=self._facts.report())
            if last:
                return
            self._facts.wait(self._timing.report_gap, self._timing.beat)

    def _obey(self, message: pb.LeaderMessage, member: Member, transport: Transport) -> None:
        match message.WhichOneof("message"):
            case "open":
                member.open(message.open, transport)
            case "close":
                member.close(message.close.reason, message.close.session)
            case "trace":
                now = time.monotonic()
                spans = self._facts.spans.newest(message.trace.spans)
                trace = pb.StageTrace(id=message.trace.id, now=now, spans=spans)
                self.tell(pb.WorkerMessage(trace=trace))
