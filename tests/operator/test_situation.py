"""What was observed, sorted by pipeline and stage."""

from __future__ import annotations

import pytest

from stageline_operator.kinds import CONTROLLER_REVISION
from stageline_operator.observed import Observed, PipelineKey, PodKey
from stageline_operator.rollout import PipelineFact
from stageline_operator.situation import InvalidSpecError, read_deployment, read_records
from support.objects import (
    crashing,
    keys,
    pod,
    pods_of,
    record,
    report,
    resource,
    router,
    scene,
    stage_report,
    waiting,
)

A0, A1 = keys("aaa", 0, 1)
B0 = PipelineKey("bbb", 0)


def one(situation, stage=0):
    return situation.pipelines[0].stages[stage]


def test_a_pipeline_that_is_kept_has_all_its_stages_whether_they_have_pods_or_not():
    found = scene(A0, pods={PodKey(*A0, 2): pod(PodKey(*A0, 2))})
    assert [(each.pod_name, each.truth is not None) for each in found.stages] == [
        ("llama-aaa-0-0", False), ("llama-aaa-0-1", False), ("llama-aaa-0-2", True),
    ]  # fmt: skip
    assert [each.state for each in found.stages] == ["Pending", "Pending", "Serving"]


def test_one_that_leaves_has_the_pods_that_are_left():
    left = {PodKey(*B0, 1): pod(PodKey(*B0, 1), deleted=10)}
    found = scene(A0, pods=pods_of(A0) | left)
    assert [pipeline.key for pipeline in found.leaving] == [B0]
    assert [stage.key for stage in found.leaving[0].stages] == list(left)
    assert [pipeline.key for pipeline in found.kept_pipelines] == [A0]
    assert found.facts == (PipelineFact(A0, ready=True),)


def test_other_pipelines_can_be_kept_instead():
    found = scene(A0).keeping([A1])
    assert [(pipeline.key, pipeline.kept) for pipeline in found.pipelines] == [
        (A0, False), (A1, True),
    ]  # fmt: skip
    assert found.wanted == 1


def test_a_pod_whose_labels_say_no_stage_is_none():
    odd = pod()
    odd["metadata"]["labels"]["stageline.dev/stage"] = "first"
    assert [stage.truth for stage in scene(A0, pods={PodKey(*A0, 0): odd}).stages] == [None] * 3


@pytest.mark.parametrize(
    ("found", "told", "state", "loaded"),
    [
        (pod(), stage_report(state="Serving"), "Serving", True),
        (pod(ready=False), stage_report(state="Loading"), "Loading", False),
        (pod(ready=False), stage_report(state="Loaded"), "Loaded", True),
        (pod(ready=False), None, "Starting", False),
        (pod(), None, "Loaded", True),
        (pod(ready=False, container=crashing()), stage_report(state="Serving"), "Failed", False),
        (pod(ready=False, container=waiting("X")), stage_report(state="Loaded"), "Pending", False),
        (pod(deleted=5), stage_report(state="Serving"), "Draining", False),
    ],
)
def test_a_stage_is_what_its_worker_says_where_its_pod_runs(found, told, state, loaded):
    leader = report(A0, stages=(told,) if told else ())
    stage = one(scene(A0, pods={PodKey(*A0, 0): found}, reports={A0: leader}))
    assert (stage.state, stage.loaded) == (state, loaded)


def test_ready_is_what_the_leader_says_as_long_as_it_is_there():
    def ready(reports, leader):
        pods = pods_of(A0) | {PodKey(*A0, 0): leader}
        return scene(A0, pods=pods, reports=reports).pipelines[0].ready

    good = {A0: report(A0)}
    assert ready(good, pod())
    assert not ready({}, pod()), "a leader that is not heard"
    assert not ready({A0: report(A0, "Connecting")}, pod())
    assert not ready(good, pod(deleted=30)), "a leader that is about to go"
    assert not ready(good, pod(ready=False, phase="Failed")), "a leader that failed"


def test_a_router_that_is_ready_is_available_before_its_deployment_has_heard_of_it():
    def available(*pods, front=None):
        front = front or router(available=0)
        named = {f"r-{number}": each for number, each in enumerate(pods)}
        return scene(A0, front=front, router_pods=named).router.available

    assert available(pod()) == 1
    assert available(pod(), pod()) == 2
    assert available(pod(ready=False)) == 0
    assert available(pod(deleted=30)) == 0, "it is going"
    assert available(front=router(available=1)) == 1


def test_routers_are_settled_when_all_are_of_the_newest_shape():
    def settled(found):
        return scene(A0, front=found).router.settled

    assert settled(router())
    assert not settled(router(available=0))
    assert not settled(router(available=2, wanted=2, updated=1))
    behind = router()
    behind["metadata"]["generation"] = 2
    assert not settled(behind), "the Deployment's controller has not seen its newest shape"
    assert not settled({}), "there is no Deployment yet"


def test_routers_of_a_deployment_as_it_was_made_are_of_the_newest_shape():
    """Its controller may be late to say so on a busy cluster."""

    def settled(generation, seen=0):
        front = router(available=0, updated=0)
        front["metadata"]["generation"] = generation
        front["status"]["observedGeneration"] = seen
        return scene(A0, front=front, router_pods={"r": pod()}).router.settled

    assert settled(1)
    assert settled(1, seen=1)
    assert not settled(2, seen=1), "the pod may be of the shape before"
    assert not settled(2, seen=2), "none is of the newest shape"


def test_a_spec_is_read_or_refused_in_a_sentence():
    assert read_deployment(resource(replicas=3)).spec.replicas == 3
    wrong = resource(pipeline={"stages": 2, "partition": [1, 2, 3]})
    with pytest.raises(InvalidSpecError, match=r"partition \[1, 2, 3\] has 3 stages but .* is 2"):
        read_deployment(wrong)
    with pytest.raises(InvalidSpecError, match="spec"):
        read_deployment({"metadata": {"name": "llama"}})


def test_records_are_read_and_what_is_none_is_passed_over():
    good = {"metadata": {"name": "a"}, "data": record("aaa").model_dump(mode="json")}
    bad = {"metadata": {"name": "b"}, "data": {"revision": "bbb"}}
    seen = Observed(resource(), {CONTROLLER_REVISION: {"a": good, "b": bad}})
    assert read_records(seen) == {"aaa": record("aaa")}
