"""The Deployment controller and the collector at work. A test plays the kubelet."""

from stageline_local.client import CONFIG_MAP, DEPLOYMENT, POD, SERVICE
from stageline_local.controllers import DeploymentController, GarbageCollector
from stageline_local.controllers.rolling import is_ready
from support.embedded import container, eventually, found, pod, running

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def deployment(replicas=2, image="one", **strategy):
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "d"}},
        "template": {
            "metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{**container(), "image": image}]},
        },
    }
    if strategy:
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": strategy}
    metadata = {"name": "d"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


async def pods_of(client, namespace):
    return await client.list(POD.place(namespace), labels="app=d")


async def be_ready(client, *pods):
    for one in pods:
        await client.merge_patch(POD.of(one), {"status": READY}, subresource="status")


async def status_with(client, namespace, **fields):
    async def look():
        status = (await client.get(DEPLOYMENT.place(namespace, "d"))).get("status") or {}
        return all(status.get(name, 0) == value for name, value in fields.items()) and status

    return await eventually(look, what=f"a status with {fields}")


async def test_deployment_comes_changes_and_goes(client, namespace):
    place, path = POD.place(namespace), DEPLOYMENT.place(namespace, "d")
    async with running(DeploymentController(client), GarbageCollector(client)):
        await client.create(DEPLOYMENT.place(namespace), deployment(maxSurge=1, maxUnavailable=0))
        status = await status_with(client, namespace, replicas=2, observedGeneration=1)
        assert status.get("readyReplicas", 0) == 0
        first = await pods_of(client, namespace)
        assert all(pod["metadata"]["name"].startswith("d-") for pod in first)
        await be_ready(client, *first)
        await status_with(client, namespace, readyReplicas=2, availableReplicas=2)

        await client.delete(place + "/" + first[0]["metadata"]["name"])
        await status_with(client, namespace, replicas=2, readyReplicas=1)
        await be_ready(client, *await pods_of(client, namespace))
        await status_with(client, namespace, readyReplicas=2)

        template = deployment(image="two")["spec"]["template"]
        await client.merge_patch(path, {"spec": {"template": template}})
        seen = set()

        async def rolled():
            pods = await pods_of(client, namespace)
            ready = [pod for pod in pods if is_ready(pod)]
            assert len(pods) <= 3
            assert len(ready) >= 2
            seen.add(len(pods))
            await be_ready(client, *(pod for pod in pods if not is_ready(pod)))
            images = {pod["spec"]["containers"][0]["image"] for pod in pods}
            return images == {"two"} and len(pods) == 2

        await eventually(rolled, what="the roll-out")
        await status_with(client, namespace, updatedReplicas=2, readyReplicas=2, replicas=2)
        assert 3 in seen

        await client.merge_patch(path, {"spec": {"replicas": 1}})
        await status_with(client, namespace, replicas=1)

        await client.delete(path)

        async def gone():
            return not await pods_of(client, namespace)

        await eventually(gone, what="the end of all pods")


def config_map(name):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


def owned(kind, name, owner, **fields):
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    metadata = {"name": name, "ownerReferences": [reference]}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **fields}


async def test_what_nobody_owns_is_collected_through_all_generations(client, namespace):
    place = CONFIG_MAP.place(namespace)
    owner = await client.create(place, config_map("o"))
    child = await client.create(place, owned(CONFIG_MAP, "child", owner))
    spec = {"ports": [{"port": 1}]}
    await client.create(SERVICE.place(namespace), owned(SERVICE, "grandchild", child, spec=spec))
    await client.create(POD.place(namespace), pod("bystander", namespace=namespace))
    async with running(GarbageCollector(client)):
        await client.delete(CONFIG_MAP.of(owner))

        async def collected():
            left = [
                await found(client, CONFIG_MAP.of(child)),
                await found(client, SERVICE.place(namespace, "grandchild")),
            ]
            return left == [None, None]

        await eventually(collected, what="the end of child and grandchild")
        late = await client.create(place, owned(CONFIG_MAP, "late", owner))

        async def late_collected():
            return await found(client, CONFIG_MAP.of(late)) is None

        await eventually(late_collected, what="the end of what was made too late")
    assert await found(client, POD.place(namespace, "bystander"))


async def test_child_of_a_living_owner_stays(client, namespace):
    place = CONFIG_MAP.place(namespace)
    owners = [await client.create(place, config_map(name)) for name in ("one", "two")]
    child = owned(CONFIG_MAP, "child", owners[0])
    other = owned(CONFIG_MAP, "child", owners[1])
    child["metadata"]["ownerReferences"] += other["metadata"]["ownerReferences"]
    await client.create(place, child)
    async with running(GarbageCollector(client)):
        await client.delete(CONFIG_MAP.of(owners[0]))
        marker = await client.create(place, owned(CONFIG_MAP, "marker", owners[0]))

        async def collected():
            return await found(client, CONFIG_MAP.of(marker)) is None

        await eventually(collected, what="the end of the marker")
        assert await found(client, CONFIG_MAP.place(namespace, "child"))
        await client.delete(CONFIG_MAP.of(owners[1]))

        async def child_collected():
            return await found(client, CONFIG_MAP.place(namespace, "child")) is None

        await eventually(child_collected, what="the end of the child")


async def test_deletion_in_the_foreground_takes_the_children_first(client, namespace):
    place = CONFIG_MAP.place(namespace)
    owner = await client.create(place, config_map("o"))
    await client.create(place, owned(CONFIG_MAP, "child", owner))
    async with running(GarbageCollector(client)):
        await client.delete(CONFIG_MAP.of(owner), propagation="Foreground")

        async def gone():
            left = {item["metadata"]["name"] for item in await client.list(place)}
            assert "o" in left or "child" not in left, "the owner went before its child"
            return not {"o", "child"} & left

        await eventually(gone, what="the end of both")
