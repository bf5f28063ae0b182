"""The embedded cluster as a whole: what is applied to it comes true on this machine."""

import asyncio
import contextlib
import os
import signal

import pytest
import yaml

from stageline_local.client import CONFIG_MAP, DEPLOYMENT, POD, SERVICE, Client
from stageline_local.cluster import EmbeddedCluster
from stageline_local.ports import free_ports
from support.embedded import FAST, Pods, container, eventually, is_ready, only
from support.processes import alive, processes_marked, until

ECHO = """
    import socket, sys
    server = socket.create_server((sys.argv[1], 7070))
    while True:
        caller, _ = server.accept()
        word = open("/etc/web/word").read()
        caller.sendall(f"{sys.argv[1]} {word}".encode())
        caller.close()
"""


def web(replicas=2):
    one = container(
        ECHO,
        args=["$(IP)"],
        env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        ports=[{"name": "web", "containerPort": 7070}],
        readinessProbe={"tcpSocket": {"port": "web"}},
        volumeMounts=[{"name": "config", "mountPath": "/etc/web"}],
    )
    volumes = [{"name": "config", "configMap": {"name": "web"}}]
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [one], "volumes": volumes},
    }
    selector = {"matchLabels": {"app": "web"}}
    spec = {"replicas": replicas, "selector": selector, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": spec,
    }


async def set_up(client, replicas=2):
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}}
    await client.create(CONFIG_MAP.place("default"), {**config, "data": {"word": "hello"}})
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "web"}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    await client.create(SERVICE.place("default"), service)
    await client.create(DEPLOYMENT.place("default"), web(replicas))


async def ask(port):
    """What the service answers, empty while the door is not open."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return ""
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer.decode()


@pytest.fixture
def marked(tmp_path, monkeypatch):
    monkeypatch.setenv("MARK", str(tmp_path))
    return str(tmp_path)


@contextlib.asynccontextmanager
async def cluster(folder, port=0):
    (door,) = free_ports(1)
    embedded = EmbeddedCluster(
        folder / "state", port=port, restart=FAST, host_port=lambda service, number: door
    )
    async with embedded, Client(embedded.url) as client:
        yield embedded, client, door


async def test_deployment_behind_a_service(tmp_path, marked):
    async with cluster(tmp_path) as (_, client, door):
        await set_up(client)
        answers = {await eventually(lambda: ask(door)) for _ in range(4)}
        listed = await client.list(POD.place("default"), labels="app=web")
        ready = [pod for pod in listed if is_ready(pod["status"])]
        assert answers <= {f"{pod['status']['podIP']} hello" for pod in listed}
        assert ready

        pods, victim = Pods(client), ready[0]["metadata"]["name"]
        pid = int(only(ready[0]["status"])["containerID"].removeprefix("process://"))
        os.kill(pid, signal.SIGKILL)
        await pods.until(victim, lambda s: only(s)["restartCount"] == 1 and is_ready(s))
        assert "hello" in await ask(door)

        await client.delete(DEPLOYMENT.place("default", "web"))

        async def gone():
            return not await client.list(POD.place("default"))

        await eventually(gone, what="the end of the Deployment's pods")
        assert not processes_marked(marked)
    assert not processes_marked(marked)


async def test_end_leaves_nothing_behind(tmp_path, marked):
    async with cluster(tmp_path) as (embedded, client, _):
        await set_up(client)
        await until(lambda: len(processes_marked(marked)) == 2)
        kubeconfig = yaml.safe_load(embedded.kubeconfig.read_text())
        assert kubeconfig["clusters"][0]["cluster"]["server"] == embedded.url
    assert not processes_marked(marked)
    assert not (tmp_path / "state" / "pods").exists()


async def test_stop_ends_pods_for_good(tmp_path, marked):
    async with cluster(tmp_path) as (embedded, client, _):
        await set_up(client)
        await until(lambda: len(processes_marked(marked)) == 2)
        before = processes_marked(marked)
        await embedded.stop(lambda pod: 0)
        assert not any(map(alive, before))
        await client.delete(f"{POD.place('default')}/none")
        await client.merge_patch(DEPLOYMENT.place("default", "web"), {"spec": {"replicas": 4}})
        await asyncio.sleep(0.3)  # long enough for a pod to start, were one to be started
        assert not processes_marked(marked)


async def test_part_that_breaks_is_told(tmp_path, marked, monkeypatch):
    async def broken(self):
        raise RuntimeError("the proxy is out of doors")

    monkeypatch.setattr("stageline_local.proxy.ServiceProxy.run", broken)
    with pytest.raises(ExceptionGroup) as told:
        async with cluster(tmp_path) as (embedded, _, _):
            await asyncio.wait_for(embedded.failed(), 10)
    assert told.group_contains(RuntimeError, match="out of doors")
