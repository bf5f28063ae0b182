"""The Secrets of a resource: made, read by name, brought back, and gone with it."""

import base64
import json

import pytest

from stageline_operator import secrets
from stageline_operator.authority import fits, vouches
from stageline_operator.kinds import EVENT, PIPELINE_DEPLOYMENT, POD, SECRET
from support.podstatus import ready, waiting

NAMES = ["llama-ca", "llama-router-tls", "llama-stage-tls"]


def data(secret):
    return {key: base64.b64decode(text) for key, text in secret["data"].items()}


async def mine(world):
    found = await world.list(SECRET)
    return {name: data(secret) for name, secret in found.items() if name.startswith("llama")}


async def test_each_role_has_a_certificate_and_no_pod_has_the_authority(world):
    async with world.operating():
        await world.create()
        resource = await world.settled()
        found = await world.list(SECRET)
        assert sorted(found) == NAMES
        for secret in found.values():
            (owner,) = secret["metadata"]["ownerReferences"]
            assert owner["uid"] == resource["metadata"]["uid"], "it goes with the resource"
        for role in ("stage", "router"):
            held = data(found[f"llama-{role}-tls"])
            assert set(held) == {"ca.crt", "tls.crt", "tls.key"}
            assert fits(held["tls.crt"], held["tls.key"])
            assert vouches(data(found["llama-ca"])["tls.crt"], held["tls.crt"], role)
        mounted = {
            volume["secret"]["secretName"]
            for pod in (await world.list(POD)).values()
            for volume in pod["spec"]["volumes"]
            if "secret" in volume
        }
    assert mounted == {"llama-router-tls", "llama-stage-tls"}


async def test_an_operator_that_starts_anew_reads_them_and_writes_nothing(world):
    async with world.operating():
        await world.create()
        await world.settled()
        await world.quiet()
        before = await mine(world)
    world.proxy.seen.clear()
    async with world.operating():
        await world.quiet()
    asked = [(seen.method, seen.path) for seen in world.proxy.seen if "/secrets" in seen.path]
    assert sorted(asked) == [("GET", SECRET.path(world.namespace, name)) for name in NAMES]
    assert await mine(world) == before


@pytest.mark.parametrize("what", ["deleted", "changed"])
async def test_what_a_pod_waits_for_is_brought_back(world, monkeypatch, what):
    monkeypatch.setattr(secrets, "STUCK_SECONDS", 0.2)
    async with world.operating():
        await world.create()
        await world.settled()
        before = await mine(world)
        if what == "deleted":
            await world.delete(SECRET, "llama-stage-tls")
        else:
            nonsense = {"data": {"tls.key": base64.b64encode(b"nonsense").decode()}}
            await world.patch(SECRET, "llama-stage-tls", nonsense)
        pod = next(name for name in await world.list(POD) if name.endswith("-0-1"))
        world.nodes.fate(pod, waiting("ContainerCreating"))
        await world.delete(POD, pod)

        async def is_mended():
            held = (await mine(world)).get("llama-stage-tls", {})
            return held and fits(held["tls.crt"], held["tls.key"])

        await world.eventually(is_mended, "the Secret is as it should be")
        after = await mine(world)
        assert {name: after[name] for name in NAMES[:2]} == {
            name: before[name] for name in NAMES[:2]
        }
        assert vouches(before["llama-ca"]["tls.crt"], after["llama-stage-tls"]["tls.crt"], "stage")
        world.nodes.fate(pod, ready())
        await world.settled()


async def test_without_its_authority_everything_is_new_and_an_event_says_so(world, monkeypatch):
    monkeypatch.setattr(secrets, "STUCK_SECONDS", 0.2)
    async with world.operating():
        await world.create()
        await world.settled()
        before = await mine(world)
        await world.delete(SECRET, "llama-ca")
        pod = next(name for name in await world.list(POD) if name.endswith("-0-1"))
        world.nodes.fate(pod, waiting("ContainerCreating"))
        await world.delete(POD, pod)

        async def is_told():
            events = await world.list(EVENT)
            return [event for event in events.values() if event["reason"] == "CertificatesReplaced"]

        (event,) = await world.eventually(is_told, "an event tells of it")
        assert event["note"].startswith("the authority that had given llama its certificates")
        after = await mine(world)
    assert sorted(after) == NAMES
    for role in ("stage", "router"):
        shown = after[f"llama-{role}-tls"]["tls.crt"]
        assert vouches(after["llama-ca"]["tls.crt"], shown, role)
        assert not vouches(before["llama-ca"]["tls.crt"], shown, role)


async def test_without_tls_there_are_none_and_a_change_of_mind_is_a_rollout(world):
    async with world.operating():
        await world.create(security={"tls": "Disabled"})
        await world.settled()
        await world.quiet()
        assert not await mine(world)
        assert not [seen for seen in world.proxy.seen if "/secrets" in seen.path]
        before = await world.list(POD)
        await world.patch(PIPELINE_DEPLOYMENT, "llama", {"spec": {"security": {"tls": "Enabled"}}})
        await world.settled()
        assert sorted(await mine(world)) == NAMES
        stages = {name for name in await world.list(POD) if "router" not in name}
        assert stages.isdisjoint(before), "no stage speaks both"
        routers = {name for name in before if "router" in name}
        assert routers <= set(await world.list(POD)), "a router speaks to either"


async def test_what_an_earlier_one_has_left_is_waited_for(world):
    """Garbage collection takes it, and nobody tells the operator when."""
    resource = await world.create()
    left = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "llama-ca",
            "ownerReferences": [
                {
                    **{key: resource[key] for key in ("apiVersion", "kind")},
                    "name": "llama",
                    "uid": "00000000-0000-0000-0000-000000000000",
                    "controller": True,
                }
            ],
        },
    }
    await world.client.create(SECRET.path(world.namespace), left)
    async with world.operating():

        async def is_told():
            told = json.dumps((await world.get(PIPELINE_DEPLOYMENT, "llama")).get("status"))
            return "Secret llama-ca is an earlier PipelineDeployment llama's" in told

        await world.eventually(is_told, "status says what is in the way")
        await world.delete(SECRET, "llama-ca")
        await world.settled(seconds=10)
