"""What a pod's volumes want, what of it is missing, and how a resource says so."""

import pytest

from stageline_operator import secrets
from stageline_operator.cache import Key
from stageline_operator.cluster import Refused
from stageline_operator.healing import Healing
from stageline_operator.kinds import CONFIG_MAP, POD, SECRET
from stageline_operator.missing import Missing
from stageline_operator.mounts import Need, is_unmade, lack, needs
from stageline_operator.observed import Observed, PodKey
from stageline_operator.planning import Planning
from stageline_operator.status import status
from support.memory_cluster import MemoryCluster
from support.objects import NOW, keys, pod, pods_of, record, router, scene, waiting

KEY = Key("default", "llama")
VOLUMES = {
    "a Secret": ({"secret": {"secretName": "hub"}}, [Need(SECRET, "hub")]),
    "keys of a Secret": (
        {"secret": {"secretName": "hub", "items": [{"key": "token", "path": "t"}]}},
        [Need(SECRET, "hub", ("token",))],
    ),
    "one that may be missing": ({"secret": {"secretName": "hub", "optional": True}}, []),
    "a ConfigMap": ({"configMap": {"name": "prompts"}}, [Need(CONFIG_MAP, "prompts")]),
    "parts of a projected volume": (
        {"projected": {"sources": [
            {"secret": {"name": "hub", "items": [{"key": "a"}, {"key": "b"}]}},
            {"configMap": {"name": "prompts", "optional": True}},
            {"serviceAccountToken": {"path": "token"}},
        ]}},
        [Need(SECRET, "hub", ("a", "b"))],
    ),
    "others": ({"persistentVolumeClaim": {"claimName": "models"}}, []),
}  # fmt: skip


@pytest.mark.parametrize("volume", VOLUMES)
def test_what_a_volume_cannot_do_without(volume):
    source, expected = VOLUMES[volume]
    assert list(needs({"spec": {"volumes": [{"name": "x", **source}]}})) == expected


def test_what_is_wanted_twice_is_asked_for_once():
    volumes = [{"name": name, "secret": {"secretName": "hub"}} for name in "ab"]
    assert needs({"spec": {"volumes": volumes}}) == (Need(SECRET, "hub"),)
    assert needs({"spec": {}}) == ()


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "it waits for Secret team-a/hub, which does not exist: create it"),
        ({}, "it waits for key token of Secret team-a/hub, which has none: add it"),
        ({"data": {"other": "eA=="}},
         "it waits for key token of Secret team-a/hub, which has none: add it"),
        ({"data": {"token": "eA=="}}, ""),
        ({"binaryData": {"token": "eA=="}}, ""),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_what_to_do(found, sentence):
    assert lack(Need(SECRET, "hub", ("token",)), "team-a", found) == sentence


CREATING = pod(ready=False, phase="Pending", container=waiting("ContainerCreating"))


@pytest.mark.parametrize(
    ("found", "unmade"),
    [
        (CREATING, True),
        (pod(ready=False, phase="Pending", container=waiting("PodInitializing")), True),
        (pod(), False),
        (pod(ready=False, container=waiting("ErrImagePull")), False),
        (pod(ready=False, phase="Pending", node=""), False),
        (pod(ready=False, container=waiting("ContainerCreating"), deleted=30), False),
        ({**CREATING, "status": {
            **CREATING["status"], "initContainerStatuses": [{"state": {"running": {}}}],
        }}, False),
        ({**CREATING, "status": {}}, False),
    ],
)  # fmt: skip
def test_only_a_pod_that_has_a_node_and_no_container_may_wait_for_a_volume(found, unmade):
    assert is_unmade(found) == unmade


# Told


def seen(**pods):
    return Observed({"metadata": {"name": "llama"}}, {POD: pods})


A0 = keys("aaa", 0)[0]
ONE = PodKey(*A0, 1)
STUCK = pod(ONE, ready=False, phase="Pending", container=waiting("ContainerCreating"))


def stuck_pod(name):
    return {**STUCK, "metadata": {"name": name, "uid": f"uid-{name}"}}


def ready_condition(**observed):
    found = scene(A0, pods=pods_of(A0) | {ONE: STUCK}, reports={}, **observed)
    told = status(found, Planning(record("aaa")), Healing(), "", NOW).status
    return next(one for one in told["conditions"] if one["type"] == "Ready"), told["stages"][1]


def test_what_a_stage_waits_for_is_its_trouble():
    sentence = "it waits for Secret default/hub, which does not exist: create it"
    ready, stage = ready_condition(lacks={STUCK["metadata"]["name"]: sentence})
    assert (ready["status"], ready["reason"]) == ("False", "StageConfig")
    assert ready["message"].startswith(
        f"pipeline 0 stage 1 (pod llama-aaa-0-1): FailedMount: {sentence}"
    )
    assert (stage["state"], stage["message"]) == ("Pending", f"FailedMount: {sentence}")
    ready, stage = ready_condition()
    assert ready["reason"] == "StageStarting"
    assert "message" not in stage


def test_what_the_profile_and_a_router_wait_for_is_told():
    sentence = "it waits for Secret default/hub, which does not exist: create it"
    profile = {**STUCK, "metadata": {**STUCK["metadata"], "name": "llama-profile-1"}}
    front = {"llama-router-x": {**STUCK, "metadata": {"name": "llama-router-x"}}}
    lacks = {"llama-profile-1": sentence, "llama-router-x": sentence}
    found = scene(profile_pod=profile, lacks=lacks, router_pods=front, front=router(0))
    told = status(found, Planning(profile_pod=profile), Healing(), "", NOW).status
    said = {one["type"]: (one["reason"], one["message"]) for one in told["conditions"]}
    assert said["Planned"] == (
        "ProfileFailed",
        f"the profile of the model (pod llama-profile-1): FailedMount: {sentence}",
    )
    assert said["RouterReady"] == (
        "RouterFailed",
        f"0 of 1 routers answer; the router (pod llama-router-x): FailedMount: {sentence}",
    )


# Found out


@pytest.fixture
def cluster():
    made = MemoryCluster()
    volumes = [
        {"name": "own", "secret": {"secretName": "llama-stage-tls"}},
        {"name": "hub", "secret": {"secretName": "hub", "items": [{"key": "token", "path": "t"}]}},
    ]
    for name in ("a", "b"):
        made.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                  "spec": {"volumes": volumes}})  # fmt: skip
    return made


def secret(**data):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}, "data": data}


async def test_it_is_asked_only_for_pods_that_take_long_and_until_it_is_there(cluster):
    missing, stuck = Missing(cluster), seen(a=stuck_pod("a"), b=stuck_pod("b"), c=pod())
    late = secrets.STUCK_SECONDS
    await missing.look(KEY, stuck, 0.0)
    assert (cluster.calls, missing.wait(KEY, 1.0)) == ([], late - 1)
    await missing.look(KEY, stuck, late)
    said = "it waits for Secret default/hub, which does not exist: create it"
    assert missing.of(KEY) == {"a": said, "b": said}
    assert [name for _, name in cluster.calls] == ["a", "b", "hub"], "ours are ours to make"
    cluster.put(secret(other="eA=="))
    await missing.look(KEY, stuck, late + 1)
    assert missing.of(KEY) == {"a": said, "b": said}, "not each time that something happens"
    await missing.look(KEY, stuck, 2 * late)
    assert missing.of(KEY)["a"] == (
        "it waits for key token of Secret default/hub, which has none: add it"
    )
    cluster.put(secret(token="eA=="))
    await missing.look(KEY, stuck, 3 * late)
    assert missing.of(KEY) == {}
    asked = [name for _, name in cluster.calls]
    assert asked == ["a", "b", "hub", "hub", "hub"], "a pod's volumes do not change"
    await missing.look(KEY, seen(a=pod()), 4 * late)
    assert missing.wait(KEY, 4 * late) is None


async def test_a_pod_that_is_gone_and_a_secret_that_may_not_be_read_are_left_out(cluster):
    missing = Missing(cluster)
    cluster.fault = lambda verb, subject: Refused("no") if subject == "hub" else None
    for now in (0.0, secrets.STUCK_SECONDS):
        await missing.look(KEY, seen(a=stuck_pod("a"), gone=stuck_pod("gone")), now)
    assert missing.of(KEY) == {}


async def test_of_a_resource_that_is_gone_nothing_is_kept(cluster):
    missing = Missing(cluster)
    for now in (0.0, secrets.STUCK_SECONDS):
        await missing.look(KEY, seen(a=STUCK), now)
    assert missing.of(KEY)
    await missing.look(KEY, None, 100.0)
    assert (missing.of(KEY), missing.wait(KEY, 100.0)) == ({}, None)
