"""How pods end: asked first, then made to, one after the other, within a limit."""

import os
import signal

from support.embedded import SLEEP, container, is_ready, only, pid_of, terminated
from support.processes import alive, processes_marked, until, written

DEAF = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(600)
"""


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
