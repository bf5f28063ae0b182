"""Somebody undoes what the operator does, as fast as it does it: requests are counted for 30 s."""

from __future__ import annotations

import asyncio
import contextlib

from stageline_local.apiserver import served
from stageline_local.client import ApiError, Client
from stageline_operator.kinds import CONFIG_MAP, EVENT, PIPELINE_DEPLOYMENT, POD, SERVICE
from stageline_operator.labels import PART_OF
from support.fakenodes import FakeNodes
from support.faultyproxy import FaultyProxy
from support.kube import Server
from support.operator import operating

SECONDS = 30.0
MOST = 100
"""Requests: six hurried repairs of each of three children, then two a minute, what each asks for
beside, and the status and the Events that tell of it."""
NAMESPACE = "default"


async def test_edits_and_deletions_without_end_are_no_hot_loop():
    with (
        served() as api,
        FaultyProxy(Server(api.url)) as proxy,
        FakeNodes(api.url),
    ):
        async with Client(api.url, agent="somebody") as client, operating(Server(proxy.url)):
            await client.create(
                PIPELINE_DEPLOYMENT.path(NAMESPACE),
                {"apiVersion": PIPELINE_DEPLOYMENT.api_version, "kind": PIPELINE_DEPLOYMENT.kind,
                 "metadata": {"name": "llama"},
                 "spec": {"model": {"uri": "file:///models/x"}, "pipeline": {"stages": 2}}},
            )  # fmt: skip
            await _ready(client)
            before = len(proxy.seen)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as meddlers:
                    meddlers.create_task(_edit(client, SERVICE, "llama"))
                    meddlers.create_task(_delete(client, CONFIG_MAP, "llama-router"))
                    meddlers.create_task(_delete(client, POD, "-0-1"))
            asked = [one for one in proxy.seen[before:] if "watch=true" not in one.query]
            notes = [event["note"] for event in await client.list(EVENT.path(NAMESPACE))
                     if event["reason"] == "ChildContested"]  # fmt: skip
    assert len(asked) <= MOST, f"{len(asked)} requests in {SECONDS:g} s"
    for words in (
        "Service llama is changed",
        "ConfigMap llama-router is deleted",
        "-0-1 is deleted",
    ):
        assert len([note for note in notes if words in note]) == 1, (words, notes)


async def _ready(client):
    async for change in client.follow(PIPELINE_DEPLOYMENT.path(NAMESPACE)):
        told = (change.object.get("status") or {}).get("conditions") or []
        if any((one["type"], one["status"]) == ("Ready", "True") for one in told):
            return


async def _edit(client, kind, name):
    """Whenever it is as it should be, it is changed."""
    async for change in client.follow(kind.path(NAMESPACE)):
        metadata = change.object.get("metadata") or {}
        if metadata.get("name") == name and metadata["labels"].get(PART_OF) != "me":
            patch = {"metadata": {"labels": {PART_OF: "me"}}}
            await client.merge_patch(kind.path(NAMESPACE, name), patch)


async def _delete(client, kind, ending):
    """Whenever it is there, it is deleted."""
    async for change in client.follow(kind.path(NAMESPACE)):
        name = (change.object.get("metadata") or {}).get("name", "")
        if change.type == "ADDED" and name.endswith(ending):
            with contextlib.suppress(ApiError):
                await client.delete(kind.path(NAMESPACE, name), grace_seconds=0)
