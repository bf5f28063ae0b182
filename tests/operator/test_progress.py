"""What counts as progress, and what is said when there is none until the deadline."""

from __future__ import annotations

import pytest

from support.life import A0, A1, ONE, Life, loading
from support.objects import at, crashing, pod, pods_of, report, router, scene

HALF_AN_HOUR = 1800


def stalled(life):
    condition = life.condition("Stalled")
    return condition["status"], condition["reason"]


def test_without_progress_it_stalls_at_the_deadline_and_says_where():
    life = Life()
    life.see(loading())
    assert life.again == HALF_AN_HOUR
    life.see(loading(), HALF_AN_HOUR - 1)
    assert (stalled(life)[0], life.again) == ("False", 1)
    life.see(loading(), HALF_AN_HOUR)
    assert stalled(life) == ("True", "ProgressDeadlineExceeded")
    words = life.condition("Stalled")["message"]
    assert words.startswith("no progress for 30m (spec.rollout.progressDeadline): pipeline 0 stage")
    assert life.condition("Reconciling")["status"] == "False"
    assert life.condition("Ready")["reason"] == "StageLoading"


def test_progress_puts_the_deadline_off_and_ends_a_stall():
    life = Life()
    life.see(loading(loaded=100))
    life.see(loading(loaded=200), HALF_AN_HOUR - 1)
    life.see(loading(loaded=200), HALF_AN_HOUR)
    assert stalled(life)[0] == "False", "it loaded a tenth just before"
    life.see(loading(loaded=200), 2 * HALF_AN_HOUR)
    assert stalled(life)[0] == "True"
    life.see(loading(loaded=300), 2 * HALF_AN_HOUR + 60)
    assert stalled(life)[0] == "False"
    life.see(scene(A0), 2 * HALF_AN_HOUR + 120)
    assert life.condition("Ready")["status"] == "True"


def test_a_failure_after_a_long_rest_has_the_whole_deadline():
    life = Life()
    life.see(scene(A0))
    life.see(loading(loaded=1), 86400)
    assert stalled(life)[0] == "False"
    assert life.again == HALF_AN_HOUR


def test_another_spec_begins_anew():
    life = Life()
    life.see(loading())
    life.see(loading(), HALF_AN_HOUR)
    life.see(loading(), HALF_AN_HOUR + 1, generation=2)
    assert stalled(life)[0] == "False"


def test_crashing_again_and_again_is_no_progress():
    life = Life()

    def crashes(restarts):
        found = pod(ONE, ready=False, container=crashing(), restarts=restarts)
        return scene(A0, pods=pods_of(A0) | {ONE: found}, reports={})

    def starts(restarts):
        found = pod(ONE, ready=False, restarts=restarts)
        return scene(A0, pods=pods_of(A0) | {ONE: found}, reports={})

    for restarts in range(2, 10):
        life.see(crashes(restarts), 300 * restarts)
        life.see(starts(restarts), 300 * restarts + 60)
    assert stalled(life)[0] == "True"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (scene(A0, pods={}, reports={}), scene(A0, reports={})),
        (scene(A0, reports={}), scene(A0, A1, reports={})),
        (scene(A0, reports={}, front=router(0)), scene(A0, reports={})),
        (scene(A0, A1, reports={}), scene(A0, A1, reports={A0: report(A0)})),
    ],
    ids=["pods came", "a pipeline more", "the router answers", "a pipeline serves"],
)
def test_what_counts_as_progress(before, after):
    life = Life()
    life.see(before)
    life.see(after, 600)
    assert life.status["progressedAt"] == at(600)
