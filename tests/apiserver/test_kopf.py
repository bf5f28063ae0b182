"""kopf, as the operator uses it, sees what happens on the server."""

import asyncio
from contextlib import asynccontextmanager

import kopf

from support.apiserver import DEPLOYMENTS, MERGE, PIPELINES, ask, deployment, pipeline


@asynccontextmanager
async def watching(server, **settings):
    """Runs kopf with one handler; gives the queue of (type, name) that it is told."""
    registry = kopf.OperatorRegistry()
    events: asyncio.Queue[tuple[str | None, str]] = asyncio.Queue()

    @kopf.on.login(registry=registry)
    def login(**_):
        return kopf.ConnectionInfo(server=server.url)

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_):
        settings.posting.enabled = False
        settings.watching.label_selectors["apps", "v1", "deployments"] = "stage"
        settings.scanning.disabled = False

    @kopf.on.event("stageline.dev", "v1alpha1", "pipelinedeployments", registry=registry)
    @kopf.on.event("apps", "v1", "deployments", registry=registry)
    async def seen(type: str | None, body: kopf.Body, **_):
        events.put_nowait((type, body["metadata"]["name"]))

    stop, ready = asyncio.Event(), asyncio.Event()
    operator = kopf.operator(
        registry=registry, clusterwide=True, standalone=True, stop_flag=stop, ready_flag=ready
    )
    task = asyncio.create_task(operator)
    await ready.wait()
    try:
        yield events
    finally:
        stop.set()
        await task


async def test_kopf_sees_objects_come_change_and_go(server):
    async def call(*request):
        return await asyncio.to_thread(ask, server.url, *request)

    await call("POST", PIPELINES, pipeline("there"))
    async with watching(server) as events, asyncio.timeout(20):
        assert await events.get() == (None, "there")
        await call("POST", PIPELINES, pipeline())
        assert await events.get() == ("ADDED", "llama")
        await call("PATCH", f"{PIPELINES}/llama", {"spec": {"replicas": 2}}, MERGE)
        assert await events.get() == ("MODIFIED", "llama")
        await call("POST", DEPLOYMENTS, deployment("unlabelled"))
        labelled = {**deployment("d"), "metadata": {"name": "d", "labels": {"stage": "0"}}}
        await call("POST", DEPLOYMENTS, labelled)
        assert (await events.get())[1] == "d"
        await call("DELETE", f"{PIPELINES}/llama")
        assert await events.get() == ("DELETED", "llama")
    obj = (await call("GET", f"{PIPELINES}/there")).body
    assert "finalizers" not in obj["metadata"]
    assert "annotations" not in obj["metadata"]


async def test_kopf_goes_on_after_a_restart_and_after_compaction(server):
    async def call(*request):
        return await asyncio.to_thread(ask, server.url, *request)

    async with watching(server) as events, asyncio.timeout(30):
        await call("POST", PIPELINES, pipeline("before"))
        assert (await events.get())[1] == "before"
        await asyncio.to_thread(server.compact)
        await asyncio.to_thread(server.restart)
        await call("POST", PIPELINES, pipeline("after"))
        while (await events.get())[1] != "after":
            pass
