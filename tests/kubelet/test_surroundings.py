"""What a pod finds: its environment, address, share of the cores, volumes."""

from stageline_local.client import CONFIG_MAP, SECRET
from stageline_local.kubelet.node import cores
from support.apiserver import config_map
from support.embedded import container, is_ready, only, pid_of, waits_with
from support.processes import environment, until, written


async def test_environment(pods, client):
    await client.create(CONFIG_MAP.place("default"), config_map("cm", LEVEL="7"))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    await client.create(SECRET.place("default"), {**secret, "data": {"TOKEN": "aHVzaA=="}})
    env = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "DOCUMENT", "value": '{"listen":"$(POD_IP):7070","cost":"$$5"}'},
        {"name": "NEXT", "value": "b.things.default.svc.cluster.local:7070"},
        {"name": "OWN", "value": "a.things.default.svc.cluster.local:7070"},
        {"name": "ALL", "value": "0.0.0.0:7070"},
    ]
    sources = [{"configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}]
    one = container(env=env, envFrom=sources)
    await pods.make("a", one, hostname="a", subdomain="things")
    await pods.make("b", hostname="b", subdomain="things")
    first, second = await pods.until("a", is_ready), await pods.until("b", is_ready)
    address = first["status"]["podIP"]
    seen = await until(lambda: environment(pid_of(first)), what="its environment")
    assert seen["DOCUMENT"] == f'{{"listen":"{address}:7070","cost":"$5"}}'
    assert seen["OWN"] == seen["ALL"] == f"{address}:7070"
    assert seen["NEXT"] == f"{second['status']['podIP']}:7070"
    assert (seen["LEVEL"], seen["TOKEN"], seen["HOSTNAME"]) == ("7", "hush", "a")
    assert seen["PYTHONUNBUFFERED"] == "1"


async def test_address_stays_with_the_name(pods):
    await pods.make("a", hostname="a", subdomain="things")
    first = await pods.until("a", is_ready)
    await pods.delete("a", grace_seconds=0)
    await pods.make("a", hostname="a", subdomain="things")
    second = await pods.until("a", is_ready)
    assert second["status"]["podIP"] == first["status"]["podIP"]
    await pods.make("b")
    other = await pods.until("b", is_ready)
    assert other["status"]["podIP"] != first["status"]["podIP"]


async def test_pods_share_the_cores(pods, monkeypatch):
    for name in "abc":
        await pods.make(name)
    seen = [await environment_of(pods, name) for name in "abc"]
    share = str(max(1, cores() // 3))
    assert [env["OMP_NUM_THREADS"] for env in seen] == [share] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    await pods.make("d")
    assert (await environment_of(pods, "d"))["OMP_NUM_THREADS"] == "5"


async def environment_of(pods, name):
    """Of the process of a pod, once it has become the command."""
    pid = pid_of(await pods.until(name, is_ready))
    return await until(lambda: environment(pid), what=f"the environment of {name}")


async def test_volumes_follow_what_they_are_made_of(pods, client, kubelet, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "name").write_text("llama")
    await client.create(
        CONFIG_MAP.place("default"), config_map("cm", word="x.y.default.svc.cluster.local")
    )
    code = f"""
        import pathlib, time
        config = pathlib.Path("/etc/config/word")
        print(pathlib.Path("{tmp_path}/model/name").read_text(), config.read_text(), flush=True)
        pathlib.Path("/cache/made").write_text("mine")
        while config.read_text() != "second":
            time.sleep(0.01)
        print("saw the second", flush=True)
        time.sleep(600)
    """
    mounts = [
        {"name": "config", "mountPath": "/etc/config"},
        {"name": "model", "mountPath": f"{tmp_path}/model", "readOnly": True},
        {"name": "cache", "mountPath": "/cache"},
        {"name": "scratch", "mountPath": str(tmp_path)},
    ]
    volumes = [
        {"name": "config", "configMap": {"name": "cm"}},
        {"name": "model", "hostPath": {"path": f"{tmp_path}/model", "type": "Directory"}},
        {"name": "cache", "emptyDir": {}},
        {"name": "scratch", "emptyDir": {}},
    ]
    await pods.make("a", container(code, volumeMounts=mounts), volumes=volumes)
    await pods.make("b", hostname="x", subdomain="y")
    pod = await pods.until("a", is_ready)
    address = (await pods.until("b", is_ready))["status"]["podIP"]
    log = kubelet.log_path("default", "a")
    await until(lambda: written(log, f"llama {address}"))
    await client.merge_patch(CONFIG_MAP.place("default", "cm"), {"data": {"word": "second"}})
    await until(lambda: written(log, "saw the second"), 5)
    assert only((await pods.get("a"))["status"])["restartCount"] == 0
    folder = tmp_path / "kubelet" / "pods" / pod["metadata"]["uid"]
    assert (folder / "volumes" / "cache" / "made").read_text() == "mine"
    await pods.delete("a")
    await pods.until_gone("a")
    await until(lambda: not folder.exists())


async def test_what_is_absent_is_waited_for(pods, client):
    reference = {"configMapKeyRef": {"name": "later", "key": "word"}}
    await pods.make("a", container(env=[{"name": "WORD", "valueFrom": reference}]))
    pod = await pods.until("a", waits_with("CreateContainerConfigError"))
    message = only(pod["status"])["state"]["waiting"]["message"]
    assert message == 'configmap "later" not found'
    await client.create(CONFIG_MAP.place("default"), config_map("later", word="now"))
    pod = await pods.until("a", is_ready)
    seen = await until(lambda: environment(pid_of(pod)), what="its environment")
    assert seen["WORD"] == "now"
