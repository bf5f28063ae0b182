"""The leader's decisions about sessions, event by event and under simulated time."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stageline_worker.ring.sessions import (
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

TIMING = Timing(beat=1.0, silence=10.0, connect=10.0, settle=0.5, settle_max=4.0)
LOADED = Heard(Loading.LOADED)


def ring(stages=3, loaded=True):
    """A pipeline whose stages are attached, and loaded at second 0."""
    sessions = Sessions("llama-0", stages, 77, TIMING)
    actions = []
    for stage in range(stages):
        sessions.attach(stage, 100 + stage, 0.0)
        if loaded:
            actions = sessions.heard(stage, 100 + stage, LOADED, 0.0)
    return sessions, actions


def turning(stages=3):
    """The same, with a canary round."""
    sessions, (opened,) = ring(stages)
    for stage in range(stages):
        sessions.ready(stage, opened.session, 0.1)
    sessions.returned(opened.session, 0.02, 0.2)
    assert sessions.phase is Phase.READY
    return sessions, opened.session


def test_a_session_forms_step_by_step():
    sessions, (opened,) = ring()
    assert opened == Open((77 << 32) + 1, (100, 101, 102))
    assert sessions.ready(0, opened.session, 0.1) == []
    assert sessions.ready(2, opened.session, 0.1) == []
    assert sessions.ready(2, opened.session, 0.1) == [], "one stage counted twice"
    assert sessions.ready(1, opened.session, 0.2) == [Canary(opened.session)]
    assert sessions.phase is Phase.CONNECTING, "ready before a canary went round"
    assert sessions.returned(opened.session, 0.05, 0.3) == [Admit(opened.session)]
    assert (sessions.phase, sessions.formed, sessions.canary_seconds) == (Phase.READY, 1, 0.05)


def test_no_session_while_a_stage_is_missing_or_loads_and_the_reason_is_said():
    sessions = Sessions("llama-0", 3, 77, TIMING)
    sessions.attach(0, 100, 0.0)
    sessions.attach(2, 102, 0.0)
    sessions.heard(0, 100, LOADED, 0.0)
    sessions.heard(2, 102, Heard(Loading.LOADING), 0.0)
    assert sessions.missing(0.0) == "stage 1 is not there; stage 2 is loading"
    half = Heard(Loading.LOADING, loaded_bytes=41 << 20, total_bytes=135 << 20)
    assert sessions.heard(2, 102, half, 0.0) == []
    assert sessions.missing(0.0) == "stage 1 is not there; stage 2 is loading: 41 MiB of 135 MiB"
    failed = Heard(Loading.FAILED, error="no such file")
    sessions.heard(2, 102, failed, 0.0)
    assert "stage 2 failed: no such file" in sessions.missing(0.0)
    sessions.refuse(1, "it has plan b")
    assert "stage 1 is not there (it has plan b)" in sessions.missing(0.0)


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (lambda s, n: s.detach(1, 101, "its control stream broke", 5.0),
         "stage 1 of llama-0 is gone: its control stream broke"),
        (lambda s, n: s.broken(n, 2, "its link from stage 1 broke (reset)", 4.9) + s.tick(5.0),
         "stage 2 of llama-0 is out of the ring: its link from stage 1 broke (reset)"),
        (lambda s, n: s.heard(1, 101, Heard(Loading.LEAVING), 5.0),
         "stage 1 of llama-0 is leaving"),
        (lambda s, n: s.heard(1, 101, Heard(Loading.FAILED, error="boom"), 5.0),
         "stage 1 of llama-0 failed: boom"),
        (lambda s, n: s.attach(1, 101, 5.0), "stage 1 of llama-0 attached again"),
        (lambda s, n: s.overdue(n, 9, 1.5, 5.0),
         "stage 0 of llama-0 hangs: a microbatch did not pass it in 1.5 s"),
        (lambda s, n: s.end("llama-0 is stopping", 5.0), "llama-0 is stopping"),
    ],
)  # fmt: skip
def test_whatever_breaks_ends_the_session_for_all_with_a_sentence(event, sentence):
    sessions, number = turning()
    assert event(sessions, number) == [Close(number, sentence)]
    assert (sessions.phase, sessions.ended) == (Phase.WAITING, sentence)


def test_the_breach_names_the_first_stage_that_did_not_pass_it_on():
    for passed, named in [((9, 8, 8), 1), ((9, 9, 8), 2), ((8, 8, 8), 0), ((9, 9, 9), 2)]:
        sessions, number = turning()
        for stage, sequence in enumerate(passed):
            sessions.heard(stage, 100 + stage, Heard(Loading.LOADED, sequence), 1.0)
        (close,) = sessions.overdue(number, 9, 1.0, 2.0)
        assert close.reason.startswith(f"stage {named} of llama-0 hangs"), passed


def test_a_broken_link_is_no_verdict_while_a_stage_may_turn_out_to_be_gone():
    sessions, number = turning()
    assert sessions.broken(number, 0, "its link to stage 1 broke", 5.0) == []
    assert sessions.broken(number, 2, "its link from stage 1 broke", 5.01) == []
    assert sessions.tick(5.05) == []
    (close,) = sessions.detach(1, 101, "its control stream broke", 5.06)
    assert close.reason == "stage 1 of llama-0 is gone: its control stream broke"
    assert sessions.tick(5.2) == [], "the suspicion outlived its session"


def test_without_better_news_the_first_broken_link_is_believed():
    sessions, number = turning()
    sessions.broken(number, 2, "its link from stage 1 broke", 5.0)
    sessions.broken(number, 1, "its link to stage 2 broke", 5.01)
    (close,) = sessions.tick(5.11)
    assert close.reason == "stage 2 of llama-0 is out of the ring: its link from stage 1 broke"


def test_news_of_other_sessions_and_other_lives_is_ignored():
    sessions, number = turning()
    assert sessions.broken(number - 1, 1, "late", 1.0) == []
    assert sessions.tick(2.0) == [], "a link of an earlier session was believed"
    assert sessions.overdue(number - 1, 1, 1.0, 1.0) == []
    assert sessions.returned(number - 1, 1.0, 1.0) == []
    assert sessions.detach(1, 999, "an earlier life", 1.0) == []
    assert sessions.heard(1, 999, Heard(Loading.FAILED), 1.0) == []
    assert sessions.phase is Phase.READY


def test_the_next_session_waits_a_moment_and_longer_each_time_it_fails():
    sessions, number = turning()
    sessions.end("x", 10.0)
    now, pauses = 10.0, []
    for _ in range(5):
        began = now
        while not (actions := heard_by_all(sessions, now)):
            now += 1 / 64
        pauses.append(now - began)
        assert actions[0].session != number, "a session number came twice"
        sessions.end("y", now)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 4.0]


def heard_by_all(sessions, now):
    found = []
    for stage in range(3):
        found = found or sessions.heard(stage, 100 + stage, LOADED, now)
    return found


def test_a_stage_that_falls_silent_is_dropped_and_no_session_forms_without_it():
    sessions, _ = turning()
    for stage in (0, 2):
        sessions.heard(stage, 100 + stage, LOADED, 10.0)
    close, drop = sessions.tick(10.5)
    assert close.reason == "stage 1 of llama-0 is gone: it has said nothing for 10.5 s"
    assert drop == Drop(1, 101)
    assert sessions.missing(11.0) == "stage 1 is not there"


def test_a_session_that_does_not_form_in_time_names_the_stage_that_did_not_join():
    sessions, (opened,) = ring()
    for stage in range(3):
        sessions.heard(stage, 100 + stage, LOADED, 9.0)
    sessions.ready(0, opened.session, 1.0)
    sessions.ready(2, opened.session, 1.0)
    assert sessions.tick(9.9) == []
    (close,) = sessions.tick(10.1)
    assert close.reason == "stage 1 of llama-0 did not join within 10 s"


def test_a_hung_stage_is_not_asked_again_before_it_is_heard_of():
    sessions, number = turning()
    sessions.overdue(number, 1, 1.0, 5.0)
    for stage in (1, 2):
        assert sessions.heard(stage, 100 + stage, LOADED, 6.0) == []
    assert sessions.missing(6.0) == "stage 0 has said nothing for 6.0 s"
    assert isinstance(sessions.heard(0, 100, LOADED, 7.0)[0], Open)


def test_another_life_gets_the_place_only_when_the_one_that_has_it_is_silent():
    sessions, _ = turning()
    sessions.heard(1, 101, LOADED, 5.0)
    assert sessions.occupied(1, 555, 5.4) == "another worker is stage 1, it was heard 0.4 s ago"
    assert sessions.occupied(1, 101, 5.4) == "", "the same life may attach again"
    assert sessions.occupied(1, 555, 8.5) == ""


def test_draining_lets_a_turning_ring_turn_and_forms_no_other():
    sessions, number = turning()
    assert sessions.drain(1.0) == []
    assert sessions.session == number
    assert sessions.end("llama-0 is stopping", 2.0) == [Close(number, "llama-0 is stopping")]
    assert heard_by_all(sessions, 9.0) == []
    unready, (opened,) = ring()
    assert unready.drain(1.0) == [Close(opened.session, "llama-0 is draining")]


class Life(RuleBasedStateMachine):
    """Any order of events: what is opened is closed, once, and work enters only turning rings."""

    @initialize(stages=st.integers(1, 4))
    def begin(self, stages):
        self.stages = stages
        self.sessions = Sessions("p", stages, 5, TIMING)
        self.now = 0.0
        self.incarnations = [0] * stages
        self.open = 0
        self.opened: list[int] = []
        self.ready: set[int] = set()
        self.canary = self.admitted = False

    def obey(self, actions):
        for action in actions:
            match action:
                case Open(session, incarnations):
                    assert not self.open, "two sessions at once"
                    assert session not in self.opened, "a session number came twice"
                    assert list(incarnations) == self.incarnations, "an earlier life was asked"
                    self.opened.append(session)
                    self.open, self.ready = session, set()
                    self.canary = self.admitted = False
                case Canary(session):
                    assert session == self.open
                    assert self.ready == set(range(self.stages)), "canary without all links"
                    assert not self.canary, "two canaries"
                    self.canary = True
                case Admit(session):
                    assert session == self.open
                    assert self.canary, "work without a canary"
                    self.admitted = True
                case Close(session, reason):
                    assert session == self.open
                    assert reason
                    self.open = 0

    @rule(seconds=st.floats(0, 4))
    def time_passes(self, seconds):
        self.now += seconds
        self.obey(self.sessions.tick(self.now))

    @rule(data=st.data(), fresh=st.booleans())
    def attach(self, data, fresh):
        stage = data.draw(st.integers(0, self.stages - 1))
        incarnation = self.incarnations[stage] + fresh or 1
        if not self.sessions.occupied(stage, incarnation, self.now):
            self.incarnations[stage] = incarnation
            self.obey(self.sessions.attach(stage, incarnation, self.now))

    @rule(loading=st.sampled_from(Loading))
    def everyone_reports(self, loading):
        for stage, incarnation in enumerate(self.incarnations):
            self.obey(self.sessions.heard(stage, incarnation, LOADED, self.now))
        self.obey(self.sessions.heard(0, self.incarnations[0], Heard(loading), self.now))

    @rule(data=st.data())
    def detach(self, data):
        stage = data.draw(st.integers(0, self.stages - 1))
        self.obey(self.sessions.detach(stage, self.incarnations[stage], "gone", self.now))

    @rule(late=st.booleans())
    def links_stand(self, late):
        for stage in range(self.stages):
            self.ready.add(stage)
            self.obey(self.sessions.ready(stage, self.open - late, self.now))

    @rule(late=st.booleans())
    def canary_returns(self, late):
        if self.canary:
            self.obey(self.sessions.returned(self.open - late, 0.1, self.now))

    @invariant()
    def phases_are_true(self):
        if not hasattr(self, "sessions"):
            return
        assert self.sessions.session == self.open
        assert (self.sessions.phase is Phase.READY) == bool(self.open and self.admitted)


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestLife = Life.TestCase
