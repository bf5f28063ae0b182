"""An API server double with a kubelet and a scheduler, for pods that are real processes."""

import pytest

from stageline_local.apiserver import ApiServer
from stageline_local.client import Client
from stageline_local.controllers import Scheduler
from stageline_local.kubelet import Kubelet
from support.embedded import FAST, Pods, running


@pytest.fixture
async def api():
    """A server without objects."""
    server = ApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(api):
    async with Client(api.url, agent="test") as client:
        yield client


@pytest.fixture
async def kubelet(api, client, tmp_path, monkeypatch):
    """A running kubelet. What it starts carries MARK, and is gone afterwards."""
    monkeypatch.setenv("MARK", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    async with Client(api.url, agent="kubelet") as own:
        kubelet = Kubelet(
            own, tmp_path / "kubelet", resources={"example.com/gpu": "1"}, restart=FAST
        )
        async with running(kubelet, Scheduler(own)):
            yield kubelet


@pytest.fixture
def pods(client, kubelet):
    return Pods(client)
