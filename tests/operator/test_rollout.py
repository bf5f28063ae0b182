"""A rollout's steps, driven by a little world in which pipelines come up and leave.

A step is written as `a0 a1 b0?`: pipelines 0 and 1 of revision a are ready, b0 is not; pipelines
on their way out are not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stageline_operator.observed import PipelineKey
from stageline_operator.rollout import PipelineFact, next_pipelines


@dataclass
class World:
    """The pipelines of one resource; those of `broken` revisions never become ready."""

    ready: dict[PipelineKey, bool] = field(default_factory=dict)
    revision: str = "a"
    replicas: int = 2
    surge: int = 1
    unavailable: int = 0
    broken: frozenset[str] = frozenset()
    leaving: int = 0

    @property
    def serving(self) -> int:
        return sum(self.ready.values())

    @property
    def total(self) -> int:
        return len(self.ready) + self.leaving

    def wish(self) -> tuple[PipelineKey, ...]:
        facts = [PipelineFact(key, ready) for key, ready in self.ready.items()]
        return next_pipelines(
            facts, self.leaving, self.revision, self.replicas, self.surge, self.unavailable
        )

    def step(self) -> str:
        """Do what is wished; then what left is gone, and what is new comes up, unless broken."""
        wish = self.wish()
        self.leaving += len(self.ready.keys() - set(wish))
        self.ready = {key: self.ready.get(key, False) for key in wish}
        return str(self)

    def settle(self) -> None:
        self.leaving = 0
        for key in self.ready:
            self.ready[key] = self.ready[key] or key.revision not in self.broken

    def run(self, limit: int = 200) -> list[str]:
        """Every step until nothing moves any more."""
        steps = []
        for _ in range(limit):
            before = (str(self), self.leaving)
            steps.append(self.step())
            self.settle()
            if (str(self), self.leaving) == before and steps[-1] == before[0]:
                return steps[:-1]
        raise AssertionError(f"it does not come to rest: {steps[-6:]}")

    def __str__(self) -> str:
        return " ".join(
            f"{revision}{index}" + ("" if ready else "?")
            for (revision, index), ready in sorted(self.ready.items())
        )


def world(there: str, revision: str, **more: object) -> World:
    keys = [(word[0], int(word[1:].rstrip("?")), not word.endswith("?")) for word in there.split()]
    ready = {PipelineKey(revision, index): ready for revision, index, ready in keys}
    return World(ready, revision, **more)


SEQUENCES = [
    # what, what is there, the world, the steps
    ("from nothing", "", {"revision": "a"}, ["a0? a1?"]),
    ("up", "a0 a1", {"revision": "a", "replicas": 4}, ["a0 a1 a2? a3?"]),
    ("down", "a0 a1 a2 a3", {"revision": "a", "replicas": 2}, ["a0 a1"]),
    ("down, the unready first", "a0 a1? a2", {"revision": "a", "replicas": 2}, ["a0 a2"]),
    ("up again, the lowest free", "a0 a2", {"revision": "a", "replicas": 3}, ["a0 a1? a2"]),
    ("to nothing", "a0 a1", {"revision": "a", "replicas": 0}, [""]),
    ("to nothing amid a rollout", "a0 a1 b0?", {"revision": "b", "replicas": 0}, [""]),
    (
        "one by one",
        "a0 a1",
        {"revision": "b"},
        ["a0 a1 b0?", "a0 b0", "a0 b0 b1?", "b0 b1"],
    ),
    (
        "no surge: first out, then in",
        "a0 a1",
        {"revision": "b", "surge": 0, "unavailable": 1},
        ["a0", "a0 b0?", "b0", "b0 b1?"],
    ),
    (
        "both: faster",
        "a0 a1 a2 a3",
        {"revision": "b", "replicas": 4, "unavailable": 1},
        [
            "a0 a1 a2 b0?",
            "a0 a1 b0 b1?",
            "a0 b0 b1 b2?",
            "b0 b1 b2 b3?",
        ],
    ),
    ("all at once", "a0 a1", {"revision": "b", "surge": 2}, ["a0 a1 b0? b1?", "b0 b1"]),
    (
        "a revision that never comes up stops",
        "a0 a1",
        {"revision": "b", "broken": frozenset("b")},
        ["a0 a1 b0?"],
    ),
    (
        "a broken one costs maxUnavailable at most",
        "a0 a1 a2",
        {"revision": "b", "replicas": 3, "unavailable": 1, "broken": frozenset("b")},
        ["a0 a1 b0?", "a0 a1 b0? b1?"],
    ),
    (
        "changed twice: the broken one between goes first",
        "a0 a1 b0?",
        {"revision": "c"},
        ["a0 a1", "a0 a1 c0?", "a0 c0", "a0 c0 c1?", "c0 c1"],
    ),
    (
        "changed twice: the one that serves less goes first",
        "a0 a1 b0",
        {"revision": "c"},
        ["a0 a1", "a0 a1 c0?", "a0 c0", "a0 c0 c1?", "c0 c1"],
    ),
    ("back to the old one", "a0 a1 b0?", {"revision": "a"}, ["a0 a1"]),
    (
        "the old is broken: it makes way all the same",
        "a0? a1?",
        {"revision": "b", "broken": frozenset("a")},
        ["a0? a1? b0?", "a0? b0", "a0? b0 b1?", "b0 b1"],
    ),
    (
        "up amid a rollout",
        "a0 b0",
        {"revision": "b", "replicas": 3},
        ["a0 b0 b1? b2?", "b0 b1 b2"],
    ),
    ("down amid a rollout", "a0 a1 a2 b0", {"revision": "b", "replicas": 1}, ["b0"]),
    (
        "a single pipeline never leaves a gap",
        "a0",
        {"revision": "b", "replicas": 1},
        ["a0 b0?", "b0"],
    ),
]


@pytest.mark.parametrize(
    ("there", "more", "steps"), [row[1:] for row in SEQUENCES], ids=[row[0] for row in SEQUENCES]
)
def test_steps(there, more, steps):
    made = world(there, **more)
    seen = made.run()
    assert seen == steps, f"the steps were {seen}"


def test_what_is_leaving_still_holds_its_place():
    made = world("a0", "b", replicas=2, surge=0, unavailable=1, leaving=1)
    assert made.step() == "a0", "the GPUs of the one that leaves are not free yet"
    made.settle()
    assert made.step() == "a0 b0?"


def test_a_pipeline_that_was_ready_once_is_counted_as_it_is_now():
    made = world("a0 a1? b0", "b", replicas=2)
    assert made.step() == "a0 b0", "the broken old one goes, though there are two old ones"


worlds = st.builds(
    World,
    ready=st.dictionaries(
        st.builds(PipelineKey, st.sampled_from("abc"), st.integers(0, 6)), st.booleans(), max_size=9
    ),
    revision=st.sampled_from("abc"),
    replicas=st.integers(0, 6),
    surge=st.integers(1, 3),
    unavailable=st.integers(0, 3),
    broken=st.frozensets(st.sampled_from("abc"), max_size=2),
    leaving=st.integers(0, 3),
) | st.builds(
    World,
    ready=st.dictionaries(
        st.builds(PipelineKey, st.sampled_from("ab"), st.integers(0, 6)), st.booleans(), max_size=9
    ),
    revision=st.sampled_from("ab"),
    replicas=st.integers(0, 6),
    surge=st.just(0),
    unavailable=st.integers(1, 3),
)


@given(worlds)
@settings(max_examples=300)
def test_every_step_keeps_enough_that_serve_and_takes_no_more_than_its_room(made):
    least = max(made.replicas - made.unavailable, 0)
    most = max(made.replicas + made.surge, made.total)
    held = made.serving >= least
    serving = made.serving
    for _ in range(60):
        made.step()
        # Not even the moment before new ones come up may fall below.
        assert made.serving >= (least if held else min(serving, least))
        assert made.total <= most, f"{made.total} pipelines where {most} have room"
        made.settle()
        most = max(made.replicas + made.surge, made.total)
        held = held or made.serving >= least
        serving = made.serving


@given(worlds)
@settings(max_examples=300)
def test_it_comes_to_rest_and_where_nothing_is_broken_at_what_is_asked_for(made):
    made.run()
    if made.revision not in made.broken:
        assert {key.revision for key in made.ready} <= {made.revision}
        assert len(made.ready) == made.replicas


@given(worlds)
@settings(max_examples=300)
def test_nothing_ready_goes_while_something_that_is_not_would_do(made):
    before = dict(made.ready)
    wish = set(made.wish())
    gone = [key for key in before if key not in wish]
    for same in (True, False):
        of_kind = {key for key in before if (key.revision == made.revision) is same}
        lost = [key for key in gone if key in of_kind and before[key]]
        spared = [key for key in of_kind if key in wish and not before[key]]
        assert not (lost and spared), f"{lost} went while {spared} stay, not ready"


@given(worlds)
@settings(max_examples=200)
def test_what_it_gives_is_stable_and_forgets_nothing_that_need_not_go(made):
    assert made.wish() == made.wish()
    made.run()
    assert made.wish() == tuple(made.ready), "at rest it asks for what is there"


@given(st.integers(0, 8))
def test_from_nothing_it_is_the_first_indices(replicas):
    wish = World(replicas=replicas).wish()
    assert wish == tuple(PipelineKey("a", index) for index in range(replicas))
