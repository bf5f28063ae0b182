"""A resource from its first sight to its last change, in exact steps, and from any broken state."""

from dataclasses import replace

from stageline_operator.decide import decide
from stageline_operator.kinds import CONTROLLER_REVISION
from stageline_operator.labels import REVISION
from support.objects import crashing
from support.profiles import dense
from support.world import SETTINGS, made_of, revisions, settled, uids, world


def test_the_first_sight_makes_the_profile_pod_and_says_that_it_was_seen():
    one = world()
    first = one.reconcile()
    assert [verb for verb, _ in first] == ["apply", "create", "status"], first
    assert first[1][1].startswith("llama-profile-")
    assert one.condition("Ready")["status"] == "Unknown", "nothing is known yet"
    assert not one.stage_pods, "no stage before there is a plan"


def test_a_resource_becomes_ready_and_then_nothing_is_done():
    one = settled()
    assert one.condition("Ready")["status"] == "True", one.resource["status"]["conditions"]
    assert len(one.stage_pods) == 2
    assert set(one.pods) == one.stage_pods, "the profile pod is gone"
    assert one.names() | {"Pod": [], "ControllerRevision": [], "PodDisruptionBudget": []} == {
        "ServiceAccount": ["llama"],
        "Service": ["llama", "llama-stages"],
        "ConfigMap": ["llama-router"],
        "Deployment": ["llama-router"],
        "Secret": ["llama-ca", "llama-router-tls", "llama-stage-tls"],
        "Pod": [],
        "ControllerRevision": [],
        "PodDisruptionBudget": [],
    }
    assert not one.reconcile(), "at rest nothing is written"


def test_scaling_up_and_down_touches_no_pod_that_stays():
    one = settled()
    before = uids(one)
    one.change(replicas=3)
    up = one.settle()
    assert len(made_of(up, "create")) == 4
    assert not made_of(up, "delete"), "scaling up restarts nothing"
    assert (
        before.items() <= {name: pod["metadata"]["uid"] for name, pod in one.pods.items()}.items()
    )
    one.change(replicas=1)
    down = one.settle()
    assert not made_of(down, "create")
    assert uids(one) == before


def test_replicas_zero_takes_all_pipelines_and_leaves_the_door():
    one = settled(replicas=2)
    one.change(replicas=0)
    one.settle()
    assert not one.stage_pods
    assert one.names()["Deployment"] == ["llama-router"]
    assert one.condition("Ready")["reason"] == "ScaledToZero"
    one.change(replicas=1)
    one.settle()
    assert one.condition("Ready")["status"] == "True", "and it comes back"


def test_a_pipeline_goes_leader_first():
    one = settled()
    one.change(replicas=0)
    first = one.reconcile()
    (leader,) = made_of(first, "delete")[:1]
    assert leader.endswith("-0-0"), f"{leader} is no leader"
    assert not [name for name in made_of(first, "delete") if name.endswith("-0-1")]
    assert not made_of(one.reconcile(), "delete"), "the leader still drains"
    one.tick()
    assert [name[-4:] for name in made_of(one.reconcile(), "delete") if "-0-" in name] == ["-0-1"]


def test_a_change_makes_a_new_pipeline_before_the_old_one_goes():
    one = settled()
    old = revisions(one)
    one.change(pipeline={"stages": 3})
    for _ in range(20):
        serving = [r for key, r in one.observed().reports.items() if r.state == "Ready"]
        assert serving, "somebody serves at every moment"
        one.reconcile()
        one.tick()
    one.settle()
    assert len(one.stage_pods) == 3
    assert not old & revisions(one)
    assert one.condition("Ready")["status"] == "True"
    assert len(one.children[CONTROLLER_REVISION]) == 1, "the old revision's record is dropped"


def test_a_revision_that_never_comes_up_leaves_the_old_one_serving():
    one = settled()
    old = one.stage_pods
    one.change(pipeline={"stages": 3})
    one.never_ready = lambda name: name not in old
    for _ in range(30):
        one.reconcile()
        one.tick()
    assert old <= one.stage_pods, "the old pipeline is there, whole"
    assert one.condition("Reconciling")["status"] == "True"
    one.change(pipeline={"stages": 2})
    one.settle()
    assert one.stage_pods == old, "taking the change back makes nothing anew"


def test_what_cannot_fit_makes_no_stage_pod_and_says_what_would():
    one = world(resources={"deviceMemory": "1Mi"})
    one.settle()
    assert not one.stage_pods
    planned = one.condition("Planned")
    assert (planned["status"], planned["reason"]) == ("False", "PlanRefused")
    assert "needs 2 GiB but its pods offer 1 MiB" in planned["message"]
    assert one.condition("Stalled")["status"] == "True", "only another spec helps"
    one.change(resources={"deviceMemory": "80Gi"})
    effects = one.settle()
    assert not [name for name in made_of(effects, "create") if "profile" in name], (
        "the profile that was taken is used"
    )
    assert one.condition("Ready")["status"] == "True"


def test_a_change_that_is_refused_leaves_what_runs_and_still_scales_it():
    one = settled()
    running = one.stage_pods
    one.change(pipeline={"stages": 40})
    one.settle()
    assert one.stage_pods == running
    assert one.condition("Planned")["reason"] == "PlanRefused"
    one.change(replicas=2)
    one.settle()
    assert len(one.stage_pods) == 4, "the old revision is scaled"


def test_a_spec_that_cannot_be_read_changes_nothing_that_runs():
    one = settled()
    before = one.names()
    one.change(pipeline={"stages": "many"})
    assert {verb for verb, _ in one.settle()} == {"status"}
    assert one.names() == before
    assert one.condition("Planned")["reason"] == "InvalidSpec"
    assert "spec.pipeline.stages" in one.condition("Ready")["message"]


def test_another_model_under_the_same_name_is_refused():
    one = settled()
    running = one.stage_pods
    one.profile = dense(6).model_copy(update={"architecture": "BertModel", "task": "infer"})
    one.change(model={"uri": "pvc://claim/bert"})
    one.settle()
    assert one.stage_pods == running
    assert one.condition("Planned")["reason"] == "ModelChanged"
    assert "make another PipelineDeployment" in one.condition("Planned")["message"]


def test_a_pod_that_failed_is_made_anew_and_its_neighbour_stays():
    one = settled()
    failed, neighbour = sorted(one.stage_pods)
    kept = one.pods[neighbour]["metadata"]["uid"]
    one.pods[failed]["status"] = {"phase": "Failed", "reason": "Evicted", "message": "no disk"}
    effects = one.settle()
    assert made_of(effects, "delete") == [failed]
    assert made_of(effects, "create") == [failed]
    assert one.pods[neighbour]["metadata"]["uid"] == kept
    assert one.condition("Ready")["status"] == "True"
    (entry,) = [stage for stage in one.resource["status"]["stages"] if stage["pod"] == failed]
    assert entry["replacements"] == 1


def test_a_pod_that_keeps_failing_spends_its_budget_and_is_still_tried():
    one = settled()
    failed = min(one.stage_pods)
    crashed = {"name": "worker", "restartCount": 9, **crashing("no such file")}
    one.never_ready = lambda name: name == failed
    made, stalled = 0, {}
    for _ in range(400):
        if failed in one.pods:
            one.pods[failed]["spec"]["nodeName"] = "node-1"
            one.pods[failed].setdefault("status", {})["containerStatuses"] = [crashed]
        made += made_of(one.reconcile(), "create").count(failed)
        said = one.condition("Stalled")
        stalled[said["reason"]] = said["message"]
        one.tick(10)
    assert "no such file" in stalled["RestartBudgetSpent"], stalled
    assert 10 < made < 25, f"{made} pods in 4,000 s: a back-off, and no end of trying"


def test_routers_are_told_of_a_new_document_and_only_then():
    one, pod = settled(), {"metadata": {"name": "llama-router-abc", "labels": {}}, "status": {}}

    def told():
        observed = replace(one.observed(), router_pods={"llama-router-abc": pod})
        return decide(observed, SETTINGS, one.now).patch

    assert not told(), "it began with this document"
    one.change(replicas=2)
    one.settle()
    (patch,) = told()
    pod["metadata"] |= patch.body["metadata"]
    assert not told(), "it was told already"
    one.change(replicas=1)
    one.settle()
    (patch,) = told()
    pod["metadata"] |= patch.body["metadata"]
    assert not told()


def test_old_and_new_stages_are_never_in_one_ring():
    one = settled()
    one.change(pipeline={"stages": 3})
    one.settle()
    for pod in one.pods.values():
        (document,) = [
            entry["value"]
            for entry in pod["spec"]["containers"][0]["env"]
            if entry["name"] == "STAGELINE_DOCUMENT"
        ]
        mine = pod["metadata"]["labels"][REVISION]
        assert document.count(f"-{mine}-") >= 3, "its neighbours are of its own revision"
