"""Pods as real processes, real signals, real kills."""

import os
import signal

from aiohttp import web

from stageline_local.client import CONFIG_MAP, NODE, POD, SECRET
from stageline_local.kubelet.events import EVENT
from stageline_local.kubelet.node import cores
from support.embedded import (
    SLEEP,
    container,
    eventually,
    is_ready,
    is_running,
    only,
    script,
    terminated,
    waits_with,
)
from support.processes import alive, environment, processes_marked, until, written

DEAF = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(600)
"""


def pid_of(pod) -> int:
    return int(only(pod["status"])["containerID"].removeprefix("process://"))


def config_map(name, **data):
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def test_pod_runs_and_says_so(pods, kubelet):
    await pods.make("a", container("print('hello', flush=True)\n" + SLEEP))
    pod = await pods.until("a", is_ready)
    status = pod["status"]
    assert status["phase"] == "Running"
    assert status["podIP"].startswith("127.")
    assert only(status)["restartCount"] == 0
    assert {c["type"] for c in status["conditions"] if c["status"] == "True"} == {
        "PodScheduled", "Initialized", "ContainersReady", "Ready",
    }  # fmt: skip
    assert alive(pid_of(pod))
    log = await until(lambda: kubelet.log_path("default", "a"))
    await until(lambda: written(log, "hello"))
    assert kubelet.log_path("default", "a", "main") == log
    assert kubelet.log_path("default", "a", previous=True) is None
    assert kubelet.log_path("default", "other") is None


async def test_kill_9_is_seen_at_once(pods, kubelet):
    await pods.make("a", container("import os; print(os.getpid(), flush=True)\n" + SLEEP))
    first = await pods.until("a", is_ready)
    await until(lambda: written(kubelet.log_path("default", "a"), str(pid_of(first))))
    os.kill(pid_of(first), signal.SIGKILL)
    second = await pods.until("a", lambda status: only(status)["restartCount"] and is_ready(status))
    last = only(second["status"])["lastState"]["terminated"]
    assert (only(second["status"])["restartCount"], last["exitCode"]) == (1, 137)
    assert pid_of(second) != pid_of(first)
    assert second["status"]["phase"] == "Running"
    assert written(kubelet.log_path("default", "a", previous=True), str(pid_of(first)))
    await until(lambda: written(kubelet.log_path("default", "a"), str(pid_of(second))))


async def test_new_life_is_not_ready_before_it_has_shown_so(pods, tmp_path):
    check = f"import pathlib, sys; sys.exit(not pathlib.Path('{tmp_path}/good').exists())"
    probe = {"exec": {"command": script(check)}, "timeoutSeconds": 5, "failureThreshold": 60}
    (tmp_path / "good").touch()
    await pods.make("a", container(startupProbe=probe))
    first = await pods.until("a", is_ready)
    (tmp_path / "good").unlink()
    os.kill(pid_of(first), signal.SIGKILL)
    second = await pods.until("a", lambda s: only(s)["restartCount"] and is_running(s))
    assert not is_ready(second["status"])
    assert not only(second["status"])["started"]
    (tmp_path / "good").touch()
    await pods.until("a", is_ready)


async def test_only_the_killed_container_is_restarted(pods):
    await pods.make("a", container(name="one"), container(name="two"))
    before = await pods.until("a", is_ready)
    pids = {c["name"]: c["containerID"] for c in before["status"]["containerStatuses"]}
    os.kill(int(pids["one"].removeprefix("process://")), signal.SIGKILL)

    def restarted(status):
        return is_ready(status) and any(c["restartCount"] for c in status["containerStatuses"])

    after = await pods.until("a", restarted)
    now = {c["name"]: c["containerID"] for c in after["status"]["containerStatuses"]}
    assert now["two"] == pids["two"]
    assert now["one"] != pids["one"]


async def test_crash_loop_backs_off_and_tells_the_last_words(pods):
    code = """
        import sys
        open("/dev/termination-log", "w").write("no such model: look at spec.model.uri")
        sys.exit(3)
    """
    await pods.make("a", container(code))
    pod = await pods.until("a", waits_with("CrashLoopBackOff"))
    last = only(pod["status"])["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (3, "Error")
    assert last["message"] == "no such model: look at spec.model.uri"
    assert only(pod["status"])["state"]["waiting"]["message"].startswith("back-off 0.")
    assert not is_ready(pod["status"])


async def test_message_of_an_earlier_life_is_not_told_again(pods, tmp_path):
    code = f"""
        import pathlib, sys
        flag = pathlib.Path({str(tmp_path / "second")!r})
        if not flag.exists():
            flag.touch()
            open("/dev/termination-log", "w").write("the first life's")
        sys.exit(1)
    """
    await pods.make("a", container(code))
    pod = await pods.until("a", lambda status: only(status)["restartCount"] >= 2)
    assert "message" not in only(pod["status"])["lastState"]["terminated"]


async def test_success_leaves_a_message_and_no_restart(pods):
    code = """
        import sys
        open(sys.argv[1], "w").write("x" * 5000)
    """
    one = container(code, args=["/dev/end"], terminationMessagePath="/dev/end")
    await pods.make("a", one, restartPolicy="OnFailure")
    pod = await pods.until("a", terminated)
    end = terminated(pod["status"])
    assert (end["exitCode"], end["reason"], len(end["message"])) == (0, "Completed", 4096)
    assert pod["status"]["phase"] == "Succeeded"
    assert only(pod["status"])["restartCount"] == 0


async def test_failure_that_is_not_repeated(pods):
    one = container("raise SystemExit('why')", terminationMessagePolicy="FallbackToLogsOnError")
    await pods.make("a", one, restartPolicy="Never")
    pod = await pods.until("a", terminated)
    assert terminated(pod["status"])["message"] == "why"
    assert pod["status"]["phase"] == "Failed"


async def test_deletion_asks_first_and_then_insists(pods, kubelet):
    await pods.make("a", container(DEAF))
    pid = pid_of(await pods.until("a", is_ready))
    await until(lambda: written(kubelet.log_path("default", "a"), "deaf"))
    await pods.delete("a", grace_seconds=1)
    marked = await pods.get("a")
    assert marked["metadata"]["deletionTimestamp"]
    assert alive(pid)
    await pods.until_gone("a")
    assert not alive(pid)


async def test_deletion_that_is_heard_does_not_take_its_grace(pods, kubelet, tmp_path):
    code = f"""
        import pathlib, signal, sys, time
        def leave(*_):
            pathlib.Path("{tmp_path}/asked").touch()
            sys.exit()
        signal.signal(signal.SIGTERM, leave)
        print("up", flush=True)
        time.sleep(600)
    """
    await pods.make("a", container(code), terminationGracePeriodSeconds=60)
    pid = pid_of(await pods.until("a", is_ready))
    await until(lambda: written(kubelet.log_path("default", "a"), "up"))
    await pods.delete("a")
    await pods.until_gone("a", seconds=10)
    assert not alive(pid)
    assert (tmp_path / "asked").exists()


async def test_forced_deletion_kills_at_once(pods, kubelet):
    await pods.make("a", container(DEAF))
    pid = pid_of(await pods.until("a", is_ready))
    await until(lambda: written(kubelet.log_path("default", "a"), "deaf"))
    await pods.delete("a", grace_seconds=0)
    assert await pods.get("a") is None
    await until(lambda: not alive(pid), 5, "the end of a pod that is gone")


async def test_new_pod_of_the_same_name_is_another(pods, kubelet):
    await pods.make("a", container("print('first', flush=True)\n" + SLEEP))
    first = await pods.until("a", is_ready)
    await pods.delete("a")
    await pods.until_gone("a")
    await pods.make("a", container("print('second', flush=True)\n" + SLEEP))
    second = await pods.until("a", is_ready)
    assert pid_of(second) != pid_of(first)
    await until(lambda: written(kubelet.log_path("default", "a"), "second"))
    assert not written(kubelet.log_path("default", "a"), "first")


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


async def test_pod_without_a_command_is_a_sentence(pods):
    await pods.make("a", {"name": "main", "image": "nginx"})
    pod = await pods.until("a", waits_with("CreateContainerConfigError"))
    message = only(pod["status"])["state"]["waiting"]["message"]
    assert message == 'container "main" has no command: images are not run here, so say what to run'


async def test_program_that_does_not_exist(pods):
    one = {"name": "main", "image": "none", "command": ["no-such-program"]}
    await pods.make("a", {**one, "terminationMessagePolicy": "FallbackToLogsOnError"})
    pod = await pods.until("a", waits_with("CrashLoopBackOff"))
    last = only(pod["status"])["lastState"]["terminated"]
    assert last["exitCode"] == 127
    assert last["message"] == "cannot run no-such-program: No such file or directory"


async def test_python_is_the_one_that_runs_this(pods, kubelet):
    command = [
        "python",
        "-c",
        "import stageline_api, time; print('found', flush=True); time.sleep(60)",
    ]
    await pods.make("a", {"name": "main", "image": "none", "command": command})
    await pods.until("a", is_ready)
    await until(lambda: written(kubelet.log_path("default", "a"), "found"))


async def test_status_is_written_only_when_it_changes(pods, api, client):
    await pods.make("a")
    await pods.until("a", is_ready)

    def writes():
        path = POD.place("default", "a") + "/status"
        return sum(request.path == path for request in api.requests)

    before = writes()
    await client.create(CONFIG_MAP.place("default"), config_map("any", word="1"))
    await client.merge_patch(POD.place("default", "a"), {"metadata": {"labels": {"x": "y"}}})
    await pods.make("b")
    await pods.until("b", is_ready)
    assert 1 <= writes() == before


async def test_node_says_what_it_has(pods, client):
    await pods.make("a")
    await pods.until("a", is_ready)
    node = await client.get(NODE.place(name="local"))
    assert node["status"]["allocatable"]["example.com/gpu"] == "1"
    assert node["status"]["allocatable"]["cpu"] == str(cores())
    assert node["status"]["conditions"][0]["type"] == "Ready"


async def test_pod_that_asks_for_too_much_waits_until_there_is_room(pods, client):
    asks = {"resources": {"limits": {"example.com/gpu": "1"}, "requests": {"example.com/gpu": "1"}}}
    await pods.make("a", container(**asks))
    await pods.until("a", is_ready)
    await pods.make("b", container(**asks))

    def unschedulable(status):
        return next((c for c in status["conditions"] if c.get("reason") == "Unschedulable"), None)

    waiting = await pods.until("b", lambda s: s.get("conditions") and unschedulable(s))
    message = unschedulable(waiting["status"])["message"]
    assert message == "0/1 nodes are available: 1 Insufficient example.com/gpu."
    await pods.delete("a")
    pod = await pods.until("b", is_ready)
    assert not unschedulable(pod["status"])


async def test_pods_are_ended_in_the_callers_order(pods, kubelet, tmp_path):
    ends = tmp_path / "ends"
    code = f"""
        import signal, sys, time
        def end(*_):
            open({str(ends)!r}, "a").write(sys.argv[1] + " ")
            time.sleep(0.2)
            sys.exit()
        signal.signal(signal.SIGTERM, end)
        print("up", flush=True)
        time.sleep(600)
    """
    for name in ("c", "a", "b"):
        await pods.make(name, container(code, args=[name]), labels={"order": name})
    for name in ("c", "a", "b"):
        await pods.until(name, is_ready)
        await until(lambda name=name: written(kubelet.log_path("default", name), "up"))
    await kubelet.stop_all(lambda pod: "bca".index(pod["metadata"]["name"]), 20)
    assert ends.read_text() == "b c a "
    assert not processes_marked(str(tmp_path))


async def test_what_was_stopped_is_over_and_its_logs_are_kept(pods, kubelet):
    await pods.make("a", container("print('up', flush=True)\n" + SLEEP))
    first = await pods.until("a", is_ready)
    await until(lambda: written(kubelet.log_path("default", "a"), "up"))
    os.kill(pid_of(first), signal.SIGKILL)
    await pods.until("a", lambda status: only(status)["restartCount"] and is_ready(status))
    await until(lambda: written(kubelet.log_path("default", "a"), "up"))
    await kubelet.stop_all(lambda pod: 0, 20)
    pod = await pods.until("a", terminated)
    assert terminated(pod["status"])["exitCode"] == 143
    assert not is_ready(pod["status"])
    for previous in (False, True):
        assert written(kubelet.log_path("default", "a", previous=previous), "up")


async def test_end_of_all_pods_has_a_limit(pods, kubelet, tmp_path):
    await pods.make("a", container(DEAF))
    await pods.until("a", is_ready)
    await until(lambda: written(kubelet.log_path("default", "a"), "deaf"))
    await kubelet.stop_all(lambda pod: 0, 0.3)
    await until(lambda: not processes_marked(str(tmp_path)))


async def test_server_may_be_away(pods, api, client):
    await pods.make("a")
    first = await pods.until("a", is_ready)
    port = int(api.url.rpartition(":")[2])
    await api.stop()
    os.kill(pid_of(first), signal.SIGKILL)
    await until(lambda: not alive(pid_of(first)))
    await api.start(port=port)
    second = await pods.until("a", lambda status: only(status)["restartCount"] and is_ready(status))
    assert pid_of(second) != pid_of(first)
    await pods.delete("a")
    await pods.until_gone("a")


async def test_pod_that_makes_no_sense_harms_no_other(pods, client):
    await pods.make("odd", container(env=[{"name": "X", "value": "a\0b"}]))
    await pods.make("a")
    await pods.until("a", is_ready)


async def test_events_tell_the_story(pods, client):
    await pods.make("a", container("raise SystemExit('no')"))
    await pods.until("a", lambda status: only(status)["restartCount"] >= 3)
    place = EVENT.place("default")

    async def story():
        events = await client.list(place, fields="involvedObject.name=a")
        told = {event["reason"]: event for event in events}
        return {"Scheduled", "Started", "BackOff"} <= told.keys() and told

    told = await eventually(story, what="the events")
    assert told["Scheduled"]["message"] == "Successfully assigned default/a to local"
    assert told["Started"]["count"] >= 2
    assert told["BackOff"]["type"] == "Warning"


async def test_event_that_is_refused_harms_nobody(pods, api):
    def refuse(request):
        return web.Response(status=500) if request.path.endswith("/events") else None

    api.faults.append(refuse)
    await pods.make("a")
    await pods.until("a", is_ready)
