"""The leader's decisions about sessions. Pure: events and the time go in, actions come out.

A session is one life of the ring. It forms when every stage is attached, has its layers and was
heard of lately; it is ready when a canary went round; whatever breaks ends it for all, with a
sentence that names the stage. A worker's weights have nothing to do with it: survivors keep them.

    WAITING -> Open -> CONNECTING (every stage: ready) -> Canary -> READY -> Close -> WAITING
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from stageline_api.quantity import format_bytes
from stageline_worker.timing import Timing


class Loading(Enum):
    """How far a worker is, as its leader needs to know it."""

    STARTING = "starting"
    LOADING = "loading"
    LOADED = "loaded"
    LEAVING = "leaving"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a worker's report says of it."""

    loading: Loading
    last_sequence: int = 0
    loaded_bytes: int = 0
    total_bytes: int = 0
    error: str = ""


@dataclass(slots=True)
class _Peer:
    incarnation: int
    at: float
    heard: Heard = field(default_factory=lambda: Heard(Loading.STARTING))


class Phase(Enum):
    WAITING = "waiting"
    CONNECTING = "connecting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Open:
    """Tell every stage to form this session."""

    session: int
    incarnations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Canary:
    """Send a canary round."""

    session: int


@dataclass(frozen=True, slots=True)
class Admit:
    """Let work in."""

    session: int


@dataclass(frozen=True, slots=True)
class Close:
    """End the session everywhere."""

    session: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Hang up on a stage that says nothing."""

    stage: int
    incarnation: int


Action = Open | Canary | Admit | Close | Drop


class Sessions:
    """One pipeline as its leader sees it. Every method that takes an event gives the actions."""

    def __init__(self, name: str, stages: int, incarnation: int, timing: Timing) -> None:
        self._name = name
        self._timing = timing
        self._peers: list[_Peer | None] = [None] * stages
        # Never reused: the leader's life in the upper half, a counter in the lower.
        self._next = (incarnation & 0xFFFFFFFF) << 32
        self._refused: dict[int, str] = {}
        self._ready: set[int] = set()
        self._suspicion: tuple[str, float] | None = None
        self._deadline = 0.0
        self._not_before = 0.0
        self._failures = 0
        self.phase = Phase.WAITING
        self.session = 0
        self.formed = 0
        self.ended = ""
        self.canary_seconds = 0.0

    @property
    def stages(self) -> int:
        return len(self._peers)

    def attach(self, stage: int, incarnation: int, now: float) -> list[Action]:
        """A worker's control stream is here; it takes the place of an earlier one."""
        actions: list[Action] = []
        if self._peers[stage] is not None:
            actions = self._end(f"{self._stage(stage)} attached again", now)
        self._peers[stage] = _Peer(incarnation, now)
        self._refused.pop(stage, None)
        return actions

    def occupied(self, stage: int, incarnation: int, now: float) -> str:
        """Why another life of a stage may not attach, a sentence: one that is alive has its place.

        Without this, two workers of one stage would push each other out for ever.
        """
        peer = self._peers[stage]
        if peer is None or peer.incarnation == incarnation or self._is_silent(peer, now):
            return ""
        return f"another worker is stage {stage}, it was heard {now - peer.at:.1f} s ago"

    def refuse(self, stage: int, reason: str) -> list[Action]:
        """A worker that said it was this stage may not attach."""
        self._refused[stage] = reason
        return []

    def heard(self, stage: int, incarnation: int, heard: Heard, now: float) -> list[Action]:
        """A report came."""
        peer = self._peers[stage]
        if peer is None or peer.incarnation != incarnation:
            return []
        peer.heard, peer.at = heard, now
        if heard.loading is Loading.LEAVING and stage > 0:
            return self._end(f"{self._stage(stage)} is leaving", now)
        if heard.loading is Loading.FAILED:
            return self._end(f"{self._stage(stage)} failed: {heard.error}", now)
        return self._open(now)

    def detach(self, stage: int, incarnation: int, reason: str, now: float) -> list[Action]:
        """A worker's control stream is gone."""
        peer = self._peers[stage]
        if peer is None or peer.incarnation != incarnation:
            return []
        self._peers[stage] = None
        return self._end(f"{self._stage(stage)} is gone: {reason}", now)

    def ready(self, stage: int, session: int, now: float) -> list[Action]:
        """Both links of this stage stand."""
        is_news = session == self.session and stage not in self._ready
        if not is_news or self.phase is not Phase.CONNECTING:
            return []
        self._ready.add(stage)
        return [Canary(session)] if len(self._ready) == self.stages else []

    def returned(self, session: int, seconds: float, now: float) -> list[Action]:
        """The canary came back."""
        if session != self.session or self.phase is not Phase.CONNECTING:
            return []
        self.phase = Phase.READY
        self.canary_seconds = seconds
        self.formed += 1
        self._failures = 0
        return [Admit(session)]

    def broken(self, session: int, stage: int, reason: str, now: float) -> list[Action]:
        """A worker says that its link with `stage` broke, or that `stage` refused the session.

        The first to say so is believed, but not at once: see `Timing.blame`.
        """
        if session == self.session and self._suspicion is None:
            sentence = f"{self._stage(stage)} is out of the ring: {reason}"
            self._suspicion = (sentence, now + self._timing.blame)
        return []

    def overdue(self, session: int, sequence: int, age: float, now: float) -> list[Action]:
        """A microbatch missed its deadline: the first stage that has not computed it is named."""
        if session != self.session:
            return []
        for stage, peer in enumerate(self._peers):
            if peer is None or peer.heard.last_sequence < sequence:
                return self._end(
                    f"{self._stage(stage)} hangs: a microbatch did not pass it in {age:.1f} s", now
                )
        last = self._stage(self.stages - 1)
        return self._end(f"{last} hangs: its result did not arrive in {age:.1f} s", now)

    def tick(self, now: float) -> list[Action]:
        """Time passes: silence, sessions that do not form, and the pause between sessions."""
        for stage, peer in enumerate(self._peers):
            if peer is not None and now - peer.at > self._timing.silence:
                self._peers[stage] = None
                reason = f"it has said nothing for {now - peer.at:.1f} s"
                ended = self._end(f"{self._stage(stage)} is gone: {reason}", now)
                return [*ended, Drop(stage, peer.incarnation)]
        if self._suspicion is not None and now >= self._suspicion[1]:
            return self._end(self._suspicion[0], now)
        if self.phase is Phase.CONNECTING and now > self._deadline:
            return self._end(self._late(), now)
        return self._open(now)

    def drain(self, now: float) -> list[Action]:
        """No session follows this one; one that is not ready yet ends at once."""
        turning, self.phase = self.phase is Phase.READY, Phase.DRAINING
        return [] if turning else self._end(f"{self._name} is draining", now)

    def end(self, reason: str, now: float) -> list[Action]:
        """The leader itself ends the session."""
        return self._end(reason, now)

    def missing(self, now: float) -> str:
        """What the ring waits for, a sentence; empty when nothing is missing."""
        said = (self._lack(stage, peer, now) for stage, peer in enumerate(self._peers))
        return "; ".join(sentence for sentence in said if sentence)

    def _open(self, now: float) -> list[Action]:
        if self.phase is not Phase.WAITING or now < self._not_before or self.missing(now):
            return []
        self._next += 1
        self.session = self._next
        self.phase = Phase.CONNECTING
        self._ready = set()
        self._deadline = now + self._timing.connect
        incarnations = tuple(peer.incarnation for peer in self._peers if peer is not None)
        return [Open(self.session, incarnations)]

    def _end(self, reason: str, now: float) -> list[Action]:
        if not self.session:
            return []
        session, self.session = self.session, 0
        self._suspicion = None
        self._failures += 1
        pause = self._timing.settle * 2.0 ** min(self._failures - 1, 16)
        self._not_before = now + min(pause, self._timing.settle_max)
        self.ended = reason
        if self.phase is not Phase.DRAINING:
            self.phase = Phase.WAITING
        return [Close(session, reason)]

    def _late(self) -> str:
        late = [stage for stage in range(self.stages) if stage not in self._ready]
        if not late:
            return f"the canary of {self._name} did not come back in {self._timing.connect:g} s"
        return f"{self._stage(late[0])} did not join within {self._timing.connect:g} s"

    def _lack(self, stage: int, peer: _Peer | None, now: float) -> str:
        if peer is None:
            refused = self._refused.get(stage)
            return f"stage {stage} is not there" + (f" ({refused})" if refused else "")
        heard = peer.heard
        if heard.loading is Loading.FAILED:
            return f"stage {stage} failed: {heard.error}"
        if heard.loading is Loading.LOADING:
            done, total = map(format_bytes, (heard.loaded_bytes, heard.total_bytes))
            return f"stage {stage} is loading" + (
                f": {done} of {total}" if heard.total_bytes else ""
            )
        if heard.loading is not Loading.LOADED:
            return f"stage {stage} is {heard.loading.value}"
        if self._is_silent(peer, now):
            return f"stage {stage} has said nothing for {now - peer.at:.1f} s"
        return ""

    def _is_silent(self, peer: _Peer, now: float) -> bool:
        return now - peer.at > 3 * self._timing.beat

    def _stage(self, stage: int) -> str:
        return f"stage {stage} of {self._name}"
