"""A pod that waits for what a volume is made of: named in status, well when it is there."""

import pytest

from stageline_operator import secrets
from stageline_operator.kinds import CONFIG_MAP, PIPELINE_DEPLOYMENT, SECRET
from support.podstatus import waiting

STAGE, PROFILE, ROUTER = "llama-*-0-1", "llama-profile-*", "llama-router-*"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A pod is stuck after a moment."""
    monkeypatch.setattr(secrets, "STUCK_SECONDS", 0.2)


def mounting(volume):
    """A podTemplate whose container has one more volume."""
    return {
        "spec": {
            "volumes": [{"name": "more", **volume}],
            "containers": [
                {"name": "worker", "volumeMounts": [{"name": "more", "mountPath": "/more"}]}
            ],
        }
    }


TOKEN = {"secret": {"secretName": "hub-token", "items": [{"key": "token", "path": "token"}]}}
PROMPTS = {"configMap": {"name": "prompts"}}


async def told(world, kind, reason, words):
    async def is_told():
        resource = await world.get(PIPELINE_DEPLOYMENT, "llama")
        return any(
            (one["type"], one["reason"]) == (kind, reason) and words in one["message"]
            for one in (resource.get("status") or {}).get("conditions") or ()
        )

    await world.eventually(is_told, f"{kind} is {reason} and says {words!r}")


async def put(world, kind, name, **data):
    body = {"apiVersion": "v1", "kind": kind.kind, "metadata": {"name": name}, "data": data}
    await world.client.create(kind.path(world.namespace), body)


async def test_a_secret_that_a_stage_mounts_is_named_with_its_key_until_it_is_there(world):
    world.nodes.fate(STAGE, waiting("ContainerCreating"))
    place = f"{world.namespace}/hub-token"
    async with world.operating():
        await world.create(podTemplate=mounting(TOKEN))
        await told(
            world, "Ready", "StageConfig",
            f"FailedMount: it waits for Secret {place}, which does not exist: create it",
        )  # fmt: skip
        await put(world, SECRET, "hub-token", other="eA==")
        await told(
            world, "Ready", "StageConfig",
            f"FailedMount: it waits for key token of Secret {place}, which has none: add it",
        )  # fmt: skip
        await world.patch(SECRET, "hub-token", {"data": {"token": "eA=="}})
        await told(world, "Ready", "StageStarting", "it waits for its volumes, its network")
        world.nodes.mend(STAGE)
        await world.settled()


async def test_what_the_profile_mounts_is_named_before_there_is_a_plan(world):
    world.nodes.fate(PROFILE, waiting("ContainerCreating"))
    async with world.operating():
        await world.create(podTemplate=mounting(PROMPTS))
        await told(
            world, "Planned", "ProfileFailed",
            f"it waits for ConfigMap {world.namespace}/prompts, which does not exist: create it",
        )  # fmt: skip
        await put(world, CONFIG_MAP, "prompts", system="x")
        world.nodes.mend(PROFILE)
        await world.settled()


async def test_a_pod_that_is_merely_slow_is_not_in_trouble(world):
    world.nodes.fate(STAGE, waiting("ContainerCreating"))
    async with world.operating():
        await put(world, SECRET, "hub-token", token="eA==")
        await world.create(podTemplate=mounting(TOKEN))
        path = SECRET.path(world.namespace, "hub-token")

        async def is_asked_for():
            return any(seen.path == path for seen in world.proxy.seen)

        await told(world, "Ready", "StageStarting", "it waits for its volumes, its network")
        await world.eventually(is_asked_for, "what the pod mounts is looked at")
        await told(world, "Ready", "StageStarting", "it waits for its volumes, its network")
        world.nodes.mend(STAGE)
        await world.settled()
