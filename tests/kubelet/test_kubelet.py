"""Pods as real processes: they run, crash, are killed and are started again."""

import os
import signal

from aiohttp import web

from stageline_local.client import CONFIG_MAP, NODE, POD
from stageline_local.kubelet.events import EVENT
from stageline_local.kubelet.node import cores
from support.apiserver import config_map
from support.embedded import (
    SLEEP,
    container,
    eventually,
    is_ready,
    is_running,
    only,
    pid_of,
    script,
    terminated,
    waits_with,
)
from support.processes import alive, until, written


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
    refused = []

    def refuse(request):
        if not request.path.endswith("/events"):
            return None
        refused.append(request.path)
        return web.Response(status=500)

    api.faults.append(refuse)
    await pods.make("a")
    await pods.until("a", is_ready)
    assert refused, "nobody tried to tell an event"
