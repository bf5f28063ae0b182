"""A resource's life: children appear, stay as they should be, and go with it."""

import asyncio
import contextlib
import threading

import pytest

from stageline_local.client import Client
from stageline_local.controllers import GarbageCollector
from stageline_operator.kinds import (
    CHILDREN,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    PIPELINE_DEPLOYMENT,
    POD,
    SECRET,
    SERVICE,
)
from stageline_operator.labels import FIELD_MANAGER, OWNER, common


async def test_children_appear_and_status_tells_of_them(world):
    async with world.operating():
        await world.create()
        resource = await world.settled()
    children = await world.everything()
    assert {plural: len(names) for plural, names in children.items()} == {
        "pods": 2, "services": 2, "configmaps": 1, "serviceaccounts": 1, "deployments": 1,
        "controllerrevisions": 1, "poddisruptionbudgets": len(children["poddisruptionbudgets"]),
    }  # fmt: skip
    stages = resource["status"]["stages"]
    assert [stage["pod"] for stage in stages] == children["pods"]
    assert {stage["state"] for stage in stages} == {"Serving"}
    assert "finalizers" not in resource["metadata"]
    assert not await _held(world), "without the operator these would never go"
    assert "annotations" not in resource["metadata"], "kopf writes nothing into the user's object"


async def _held(world):
    """Children that wait for somebody when they are deleted."""
    return [
        (kind.plural, name)
        for kind in (*CHILDREN, SECRET)
        for name, obj in (await world.list(kind)).items()
        if obj["metadata"].get("finalizers")
    ]


async def test_nothing_is_written_at_rest(world):
    async with world.operating():
        await world.create()
        await world.settled()
        await world.quiet()
        before = len(world.proxy.seen)
        await asyncio.sleep(3)
        since = [seen for seen in world.proxy.seen[before:] if "watch=true" not in seen.query]
    assert since == [], "requests were made though nothing had happened"


async def test_scaling_restarts_nothing(world):
    async with world.operating():
        await world.create()
        await world.settled()
        before = await world.list(POD)
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"replicas": 2}})
        resource = await world.settled()
        assert resource["status"]["readyReplicas"] == 2
        more = await world.list(POD)
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"replicas": 1}})
        await world.settled()

        async def as_before():
            return _uids(await world.list(POD)) == _uids(before)

        await world.eventually(as_before, "only the pods of before are there")
    assert _uids(before).items() <= _uids(more).items(), "pods were replaced"


def _uids(pods):
    return {name: pod["metadata"]["uid"] for name, pod in pods.items()}


@pytest.mark.parametrize("kind", [SERVICE, CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET])
async def test_a_child_that_is_deleted_comes_back(world, kind):
    async with world.operating():
        await world.create()
        await world.settled()
        before = await world.everything()
        name = before[kind.plural][0]
        old = await world.get(kind, name)
        await world.delete(kind, name)

        async def is_back():
            new = await world.get(kind, name)
            return new and new["metadata"]["uid"] != old["metadata"]["uid"]

        await world.eventually(is_back, f"{kind.kind} {name} is back")
        await world.settled()
    assert await world.everything() == before


async def test_a_child_that_is_edited_is_brought_back(world):
    async with world.operating():
        await world.create()
        await world.settled()
        good = await world.get(DEPLOYMENT, "llama-router")
        await world.patch(DEPLOYMENT, "llama-router", {"spec": {"replicas": 7}})
        await world.patch(CONFIG_MAP, "llama-router", {"data": {"router.json": "{}"}})

        async def is_restored():
            deployment = await world.get(DEPLOYMENT, "llama-router")
            config = await world.get(CONFIG_MAP, "llama-router")
            return (
                deployment["spec"]["replicas"] == good["spec"]["replicas"]
                and config["data"]["router.json"] != "{}"
            )

        await world.eventually(is_restored, "both edits are undone")


async def test_what_is_not_wished_any_more_goes_and_what_others_added_stays(world):
    """Of a child as it was made, by POST, and of one that has been applied."""

    def volumes(deployment):
        return {volume["name"] for volume in deployment["spec"]["template"]["spec"]["volumes"]}

    async def wishing(auth):
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"router": {"auth": auth}}})

        async def is_so():
            deployment = await world.get(DEPLOYMENT, "llama-router")
            return deployment if ("tokens" in volumes(deployment)) == bool(auth) else None

        return await world.eventually(is_so, f"the router mounts tokens as {auth} says")

    async with world.operating():
        await world.create(router={"auth": {"tokenSecretName": "tokens"}})
        await world.settled()
        theirs = {"metadata": {"annotations": {"example.com/theirs": "1"}}}
        assert "tokens" in volumes(await world.patch(DEPLOYMENT, "llama-router", theirs))
        await wishing(None)
        await wishing({"tokenSecretName": "tokens"})
        deployment = await wishing(None)
    assert deployment["metadata"]["annotations"]["example.com/theirs"] == "1"
    operations = [claim["operation"] for claim in deployment["metadata"]["managedFields"]
                  if claim["manager"] == FIELD_MANAGER]  # fmt: skip
    assert operations == ["Apply"], "what was posted is not ours twice"


@pytest.mark.parametrize("kind", [SERVICE, POD])
async def test_a_child_that_lost_its_label_gets_it_back_and_is_not_replaced(world, kind):
    async with world.operating():
        await world.create()
        await world.settled()
        name = (await world.everything())[kind.plural][0]
        before = await world.patch(kind, name, {"metadata": {"labels": {OWNER: None}}})
        assert OWNER not in before["metadata"]["labels"]

        async def is_labelled():
            obj = await world.get(kind, name)
            return obj if obj and obj["metadata"]["labels"].get(OWNER) == "llama" else None

        after = await world.eventually(is_labelled, f"{kind.kind} {name} has its label")
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        await world.settled()


async def test_a_child_that_is_not_wished_is_pruned(world):
    async with world.operating():
        resource = await world.create()
        await world.settled()
        orphan = _child(DISRUPTION_BUDGET, "llama-old-0", resource, spec={"minAvailable": 1})
        await world.client.create(DISRUPTION_BUDGET.path(world.namespace), orphan)

        async def is_gone():
            return await world.get(DISRUPTION_BUDGET, "llama-old-0") is None

        await world.eventually(is_gone, "the orphan is gone")


def _child(kind, name, resource, **more):
    metadata = resource["metadata"]
    controller = {
        "apiVersion": PIPELINE_DEPLOYMENT.api_version, "kind": PIPELINE_DEPLOYMENT.kind,
        "name": metadata["name"], "uid": metadata["uid"], "controller": True,
    }  # fmt: skip
    labels = common(metadata["name"], "stage")
    return {
        "apiVersion": kind.api_version, "kind": kind.kind,
        "metadata": {"name": name, "labels": labels, "ownerReferences": [controller]}, **more,
    }  # fmt: skip


async def test_an_object_of_somebody_else_under_our_name_is_reported_and_untouched(world):
    theirs = {"apiVersion": "v1", "kind": "ConfigMap",
              "metadata": {"name": "llama-router"}, "data": {"theirs": "1"}}  # fmt: skip
    before = await world.client.create(CONFIG_MAP.path(world.namespace), theirs)
    async with world.operating():
        await world.create()

        async def is_reported():
            resource = await world.get(PIPELINE_DEPLOYMENT, "llama")
            told = (resource.get("status") or {}).get("conditions") or []
            return any("llama-router" in c["message"] and c["reason"] == "NameTaken" for c in told)

        await world.eventually(is_reported, "status says whose the name is")
        await world.quiet()
        count = len(world.proxy.writes())
        await asyncio.sleep(2)
        assert len(world.proxy.writes()) == count, "a taken name is asked for again and again"
        assert await world.get(CONFIG_MAP, "llama-router") == before
        await world.delete(CONFIG_MAP, "llama-router")
        await world.settled(seconds=40)


async def test_deletion_leaves_nothing(world):
    with _garbage_collected(world.api.server):
        async with world.operating():
            await world.create()
            await world.settled()
            await world.delete(PIPELINE_DEPLOYMENT, "llama")

            async def nothing_left():
                there = [await world.list(kind) for kind in (PIPELINE_DEPLOYMENT, SECRET)]
                return not any(there) and not await world.everything()

            await world.eventually(nothing_left, "the resource and its children are gone")
            await asyncio.sleep(0.5)
            assert not await world.everything(), "a child came back after its resource had gone"


@contextlib.contextmanager
def _garbage_collected(server):
    """What a real cluster's controller manager does, in a thread of its own."""
    loop = asyncio.new_event_loop()

    async def collect():
        how = {"token": server.token, "ca_file": server.ca_file or None}
        async with Client(server.url, **how) as client:
            with contextlib.suppress(asyncio.CancelledError):
                await GarbageCollector(client).run()
        await asyncio.sleep(0.25 if server.ca_file else 0)

    task = loop.create_task(collect())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,), name="collector")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()


async def test_a_spec_that_cannot_be_served_makes_no_stage_and_says_why(world):
    async with world.operating():
        await world.create(pipeline={"stages": 2, "partition": [500, 500]})

        async def is_refused():
            resource = await world.get(PIPELINE_DEPLOYMENT, "llama")
            told = (resource.get("status") or {}).get("conditions") or []
            return next((c for c in told if c["type"] == "Stalled" and c["status"] == "True"), None)

        condition = await world.eventually(is_refused, "the plan is refused")
        assert "layers" in condition["message"]
        assert not [name for name in await world.list(POD) if "profile" not in name]


async def test_a_change_rolls_out_and_leaves_only_the_new(world):
    async with world.operating():
        await world.create(image="worker:1")
        before = await world.settled()
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"image": "worker:2"}})
        after = await world.settled()

        async def only_new():
            pods = (await world.list(POD)).values()
            stages = [pod for pod in pods if "stageline.dev/stage" in pod["metadata"]["labels"]]
            return {pod["spec"]["containers"][0]["image"] for pod in stages} == {"worker:2"}

        await world.eventually(only_new, "the old pipeline is gone")
    assert before["status"]["plan"]["revision"] != after["status"]["plan"]["revision"]


async def test_resources_that_ask_for_a_model_together_have_it_read_once(world):
    names = [f"llama-{number}" for number in range(6)]
    for name in names:
        await world.create(name)
    async with world.operating():
        for name in names:
            await world.settled(name)
        assert len(_profiles_of(world)) == 1, _profiles_of(world)
        await world.create("late")
        await world.settled("late")
    assert len(_profiles_of(world)) == 2, "the model may have changed before the last one asked"


def _profiles_of(world):
    """The pods that have read a model, by the path on which each was deleted."""
    deleted = (seen.path for seen in world.proxy.seen if seen.method == "DELETE")
    return [path for path in deleted if "-profile-" in path]
