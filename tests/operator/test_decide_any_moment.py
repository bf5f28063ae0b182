"""A resource whose operator is killed at any write, or knows less, and whose children go."""

import copy
from dataclasses import replace
from itertools import count

import pytest

from stageline_operator.cache import slim
from stageline_operator.decide import decide
from stageline_operator.kinds import CONFIG_MAP, POD, SECRET, kind_of
from stageline_operator.labels import REVISION
from support.world import SETTINGS, made_of, settled, uids, world


@pytest.mark.parametrize("at", range(9))
def test_a_child_that_somebody_deletes_comes_back(at):
    one = settled()
    before = one.names()
    everything = [(kind, name) for kind, kept in one.children.items() for name in sorted(kept)]
    kind, name = everything[at]
    pods = uids(one)
    del one.children[kind][name]
    one.settle()
    assert one.names() == before, f"{kind.kind} {name} is not back"
    now = uids(one)
    assert {stage for stage in pods if pods[stage] != now[stage]} <= {name}, "others were restarted"


def test_the_record_of_intent_can_be_lost():
    one = settled(replicas=2)
    pods = one.stage_pods
    del one.children[CONFIG_MAP]["llama-router"]
    effects = one.settle()
    assert one.stage_pods == pods
    assert made_of(effects, "apply") == ["llama-router"]


def test_labels_that_somebody_took_away_come_back_without_a_restart():
    one = settled()
    name = min(one.stage_pods)
    uid = one.pods[name]["metadata"]["uid"]
    one.pods[name]["metadata"]["labels"].pop(REVISION)
    assert made_of(one.settle(), "create") == []
    assert one.pods[name]["metadata"]["uid"] == uid
    assert REVISION in one.pods[name]["metadata"]["labels"]


def test_a_pod_of_ours_that_is_no_stage_goes():
    one = settled()
    stray = copy.deepcopy(one.pods[min(one.stage_pods)])
    stray["metadata"] |= {"name": "llama-stray", "uid": "stray"}
    stray["metadata"]["labels"].pop(REVISION)
    one.pods["llama-stray"] = stray
    assert made_of(one.settle(), "delete") == ["llama-stray"]


STORIES = {
    "from nothing": lambda one: None,
    "scaled": lambda one: one.change(replicas=2),
    "rolled out": lambda one: one.change(pipeline={"stages": 3}),
    "scaled to zero": lambda one: one.change(replicas=0),
    "another model": lambda one: one.change(model={"uri": "hf://meta/llama@v2"}),
}


def told(story, stop_at):
    """The story, the operator being killed after its write number `stop_at`; whether it was."""
    one = world()
    if story != "from nothing":
        one.settle()
    STORIES[story](one)
    writes = count(1)
    for _ in range(60):
        effects = list(one.effects(one.decide()))
        for _, carry_out in effects:
            carry_out()
            if next(writes) == stop_at:
                one.settle()
                return one, True
        one.tick()
        if not effects:
            return one, False
    raise AssertionError(f"{story} does not end")


@pytest.mark.parametrize("story", STORIES)
def test_an_operator_killed_at_any_write_comes_to_the_same_end(story):
    whole, _ = told(story, 0)
    for stop_at in count(1):
        one, killed = told(story, stop_at)
        assert one.names() == whole.names(), f"killed after write {stop_at}"
        ready = [world.condition("Ready")["status"] for world in (one, whole)]
        assert ready[0] == ready[1], f"killed after write {stop_at}"
        if not killed:
            assert stop_at > 5, "a story without writes tells nothing"
            return


def certain(decision):
    """What it applies, but for Secrets: their keys are drawn."""
    return tuple(obj for obj in decision.apply if kind_of(obj) != SECRET)


@pytest.mark.parametrize("story", STORIES)
def test_what_the_cache_drops_of_a_pod_is_not_missed(story):
    one = settled() if story != "from nothing" else world()
    STORIES[story](one)
    for _ in range(60):
        seen = one.observed()
        pods = {name: slim(pod) for name, pod in seen.of(POD).items()}
        known = replace(seen, children={**seen.children, POD: pods})
        mine, whole = (decide(each, SETTINGS, one.now) for each in (known, seen))
        assert replace(mine, first=(), apply=certain(mine)) == replace(
            whole, first=(), apply=certain(whole)
        )
        if not one.reconcile():
            return
        one.tick()
    raise AssertionError(f"{story} does not end")
