"""The controllers on the API server double, and on a real kube-apiserver where there is one.

$KUBEBUILDER_ASSETS names the folder of etcd and kube-apiserver; without it those tests are skipped.
"""

import uuid

import pytest

from stageline_local.apiserver import ApiServer
from stageline_local.client import DEPLOYMENT, POD, Kind
from support.embedded import client_of
from support.kube import Server

NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)


@pytest.fixture(params=["double", "real"])
async def server(request):
    """Where an API server is: of the double first, then of Kubernetes' own."""
    if request.param == "real":
        yield request.getfixturevalue("real_server").server
        return
    double = ApiServer()
    yield Server(await double.start())
    await double.stop()


@pytest.fixture
async def client(server):
    async with client_of(server) as client:
        yield client


@pytest.fixture
async def namespace(client):
    """The name of a namespace that is this test's own."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await client.create(
        NAMESPACE.place(), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )
    yield name
    for kind, grace in ((DEPLOYMENT, None), (POD, 0)):
        for obj in await client.list(kind.place(name)):
            await client.delete(kind.of(obj), grace_seconds=grace)
