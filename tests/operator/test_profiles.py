"""One pod reads a model for all that asked before it was made, and nobody waits long for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stageline_operator.cache import Key
from stageline_operator.decide import decide
from stageline_operator.decision import Reading
from stageline_operator.labels import SUBJECT
from stageline_operator.observed import SharedProfile
from stageline_operator.profiles import PATIENCE_SECONDS, Profiles
from stageline_operator.render import profile_pod, subject_of
from support.objects import deployment
from support.profiles import dense
from support.world import SETTINGS, World, world

A, B, C = (Key("default", name) for name in "abc")
PROFILE = dense()
BEGINS, WAITS = Reading("x"), Reading("x", own=False)
ENDS = Reading("x", profile=PROFILE)


class Kept:
    """The profiles of resources that are all there at second 0, and who was woken."""

    def __init__(self, *keys):
        self.woken = []
        self.profiles = Profiles(self.woken.append)
        for key in keys or (A, B, C):
            self.see(key, 0)

    def see(self, key, now, generation=1):
        found = {"metadata": {"uid": key.name, "generation": generation}}
        self.profiles.asked(key, found, now)

    def decided(self, key, reading, now):
        self.profiles.decided(key, reading, now)

    def of(self, key, now):
        return self.profiles.of(key, now)


def test_who_asked_before_waits_is_woken_and_has_it():
    kept = Kept()
    assert kept.of(A, 1) == {}, "nobody reads it yet"
    kept.decided(A, BEGINS, 1)
    assert kept.of(B, 2) == {"x": SharedProfile(None, PATIENCE_SECONDS)}
    kept.decided(B, WAITS, 2)
    kept.decided(A, ENDS, 4)
    assert kept.woken == [B], "C does not wait"
    assert kept.of(B, 4) == kept.of(C, 4) == {"x": SharedProfile(PROFILE)}


@pytest.mark.parametrize("generation", [1, 2], ids=["new", "changed"])
def test_who_asks_after_the_pod_was_made_takes_its_own(generation):
    kept = Kept(A)
    kept.decided(A, BEGINS, 1)
    kept.see(B, 0 if generation == 2 else 2)
    kept.see(B, 2, generation)
    assert kept.of(B, 3) == {}, "the model may have been changed before B was"
    kept.decided(A, ENDS, 4)
    assert kept.of(B, 5) == {}


def test_the_same_resource_seen_again_has_asked_when_it_was_seen_first():
    kept = Kept()
    kept.decided(A, BEGINS, 1)
    kept.see(B, 3)
    assert "x" in kept.of(B, 3)


def test_a_resource_of_the_same_name_is_another_one():
    kept = Kept()
    kept.decided(A, BEGINS, 1)
    kept.profiles.forget(B)
    assert kept.of(B, 2) == {}
    kept.see(B, 3)
    assert kept.of(B, 3) == {}


def test_other_namespaces_have_other_secrets_and_claims():
    far = Key("elsewhere", "b")
    kept = Kept(A, far)
    kept.decided(A, BEGINS, 1)
    assert kept.of(far, 2) == {}
    kept.decided(far, Reading("x", own=False), 2)
    kept.decided(A, ENDS, 3)
    assert kept.of(far, 4) == {}
    assert kept.woken == []


def test_the_wait_is_short_however_many_pods_begin():
    kept = Kept()
    kept.decided(A, BEGINS, 1)
    kept.decided(C, WAITS, 2)
    kept.decided(B, BEGINS, 2 + PATIENCE_SECONDS - 1)
    assert kept.of(C, 2 + PATIENCE_SECONDS - 1)["x"].wait == pytest.approx(1)
    assert kept.of(C, 2 + PATIENCE_SECONDS) == {}, "it takes its own, and tells what it meets"


def test_who_waits_for_another_model_is_not_woken():
    kept = Kept()
    kept.decided(B, Reading("y", own=False), 1)
    kept.decided(A, BEGINS, 1)
    kept.decided(A, ENDS, 2)
    assert kept.woken == []


def test_a_pod_of_which_it_is_not_known_when_it_was_made_is_not_shared():
    kept = Kept()
    kept.decided(A, ENDS, 1)  # it was there when the operator came
    assert kept.of(B, 2) == {}


def test_the_later_of_two_profiles_is_shared():
    kept = Kept()
    other = dense(layers=7)
    kept.decided(A, BEGINS, 1)
    kept.decided(B, BEGINS, 2)
    kept.decided(B, Reading("x", profile=other), 3)
    kept.decided(A, ENDS, 4)
    assert kept.of(C, 5) == {"x": SharedProfile(other)}


def test_profiles_are_dropped_after_a_minute():
    kept = Kept()
    kept.decided(A, BEGINS, 1)
    kept.decided(A, ENDS, 2)
    kept.decided(B, Reading("y"), 62)
    assert set(kept.of(C, 63)) == {"y"}


def subject(name="llama", **spec):
    found = World(**spec).resource
    found["metadata"]["name"] = name
    return subject_of(profile_pod(found, deployment(found), SETTINGS))


def test_resources_that_read_the_same_have_one_subject():
    assert subject("llama") == subject("other")


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"uri": "pvc://models/y"}},
        {"model": {"uri": "hf://x/y", "secretName": "mine"}},
        {"image": "worker:2"},
        {"nodeSelector": {"disk": "fast"}},
        {"podTemplate": {"metadata": {"labels": {"cloud/identity": "mine"}}}},
        {"podTemplate": {"spec": {"serviceAccountName": "mine"}}},
    ],
    ids=lambda spec: str(spec),
)
def test_who_reads_another_model_or_otherwise_has_another(spec):
    assert subject(**spec) != subject()


def test_no_patch_makes_a_profile_that_of_another_model():
    claimed = {"metadata": {"annotations": {SUBJECT: subject()}}}
    assert subject(model={"uri": "pvc://models/y"}, podTemplate=claimed) != subject()


def shared(one, profile, wait=0.0):
    """What is decided of a world whose model the pod of another resource reads, or has read."""
    asked = subject_of(profile_pod(one.resource, deployment(one.resource), SETTINGS))
    profiles = {asked: SharedProfile(profile, wait)}
    return decide(replace(one.observed(), profiles=profiles), SETTINGS, one.now)


def test_while_another_pod_reads_none_is_made():
    found = shared(world(), None, 7.0)
    assert (found.create, found.again) == ((), 7.0)
    assert found.reading is not None
    assert not found.reading.own
    told = {one["type"]: one["message"] for one in found.status["conditions"]}
    assert "(the pod of another PipelineDeployment)" in told["Planned"]


def test_what_another_pod_has_read_is_planned_from():
    found = shared(world(), PROFILE)
    assert any(obj["kind"] == "ControllerRevision" for obj in (*found.first, *found.apply))
    assert not any("-profile-" in pod["metadata"]["name"] for pod in found.create)
    assert found.reading is None


def test_the_own_pod_that_still_reads_is_not_needed_then():
    one = world()
    one.reconcile()
    assert any("-profile-" in gone.name for gone in shared(one, PROFILE).delete)


def test_who_has_a_pod_does_not_wait_for_another():
    one = world()
    one.reconcile()
    found = shared(one, None, 7.0)
    assert (found.reading, found.create, found.delete) == (None, (), ())
