"""The runtime with real processes and real signals."""

import asyncio
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

import stageline_local.child
from stageline_local.process import Phase, ProcessSpec
from stageline_local.restarts import Restart, RestartPolicy
from stageline_local.runtime import Runtime, difference
from support.processes import alive, environment, processes_marked, until, written

KILLED = "killed by SIGKILL (by hand, or by the system for want of memory)"
FAST = RestartPolicy(first_delay=0.02, max_delay=0.1)
SLEEP = "import time; time.sleep(600)"
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def python(folder: Path, code: str, name="a", **fields) -> ProcessSpec:
    fields = {"restart": FAST, "grace_seconds": 5.0, **fields}
    command = (sys.executable, "-I", "-S", "-c", textwrap.dedent(code))
    return ProcessSpec(name, command, folder / f"{name}.log", **fields)


async def running(runtime, name="a", restarts=0):
    def ready():
        seen = runtime.observe()[name]
        return seen.phase is Phase.RUNNING and seen.restarts == restarts and seen

    return await until(ready, what=f"{name} running after {restarts} restarts")


async def test_killed_process_is_restarted_and_the_signal_told(tmp_path):
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, SLEEP)])
        first = await running(runtime)
        os.kill(first.pid, signal.SIGKILL)
        second = await running(runtime, restarts=1)
        assert second.pid != first.pid
        assert (second.exit_code, second.error) == (137, KILLED)


async def test_last_line_is_the_reason_and_logs_span_lives(tmp_path):
    code = """
        import os, sys
        print("life", flush=True)
        sys.exit("the checkpoint has no layer 3: fetch it again\\n\\n")
    """
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, code)])
        seen = await until(lambda: (s := runtime.observe()["a"]).restarts >= 2 and s)
        assert seen.exit_code == 1
        assert seen.error == "the checkpoint has no layer 3: fetch it again"
    assert (tmp_path / "a.log").read_text().count("life") >= 2


async def test_reason_comes_from_the_last_life_only(tmp_path):
    flag = tmp_path / "second"
    code = f"""
        import os, pathlib, signal, sys
        flag = pathlib.Path({str(flag)!r})
        if flag.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        flag.touch()
        sys.exit("first life's reason")
    """
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, code)])
        await until(lambda: runtime.observe()["a"].error == KILLED)


async def test_crash_tells_its_signal_and_what_was_written_last(tmp_path):
    code = "import os; print('out of tensors', flush=True); os.abort()"
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, code)])
        seen = await until(lambda: (s := runtime.observe()["a"]).failures and s)
        assert (seen.exit_code, seen.error) == (134, "killed by SIGABRT: out of tensors")


async def test_log_of_an_earlier_run_is_gone(tmp_path):
    (tmp_path / "a.log").write_text("an earlier run\n")
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, "print('this run', flush=True)\n" + SLEEP)])
        await until(lambda: written(tmp_path / "a.log", "this run"))
    assert "earlier" not in (tmp_path / "a.log").read_text()


async def test_back_off_grows_while_starts_fail(tmp_path):
    policy = RestartPolicy(first_delay=0.2, max_delay=10.0)
    async with Runtime() as runtime:
        began = time.monotonic()
        runtime.keep([python(tmp_path, "raise SystemExit('no')", restart=policy)])
        seen = await until(lambda: (s := runtime.observe()["a"]).failures == 4 and s)
        assert time.monotonic() - began >= 0.2 + 0.4, "no back-off between the starts"
        assert seen.phase is Phase.WAITING


@pytest.mark.parametrize(
    ("when", "code", "exit_code"),
    [(Restart.ON_FAILURE, "", 0), (Restart.NEVER, "raise SystemExit(3)", 3)],
)
async def test_process_that_may_end_is_left_ended(tmp_path, when, code, exit_code):
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, code, restart=RestartPolicy(when=when))])
        seen = await until(lambda: (s := runtime.observe()["a"]).phase is Phase.ENDED and s)
        assert (seen.exit_code, seen.restarts) == (exit_code, 0)


async def test_program_that_does_not_exist_is_a_sentence(tmp_path):
    spec = ProcessSpec("a", ("no-such-program",), tmp_path / "a.log", restart=FAST)
    async with Runtime() as runtime:
        runtime.keep([spec])
        seen = await until(lambda: (s := runtime.observe()["a"]).failures and s)
        assert seen.exit_code == 127
        assert seen.error == "cannot run no-such-program: No such file or directory"


async def test_log_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    spec = ProcessSpec("a", ("true",), tmp_path / "file" / "a.log", restart=FAST)
    async with Runtime() as runtime:
        runtime.keep([spec])
        seen = await until(lambda: (s := runtime.observe()["a"]).failures and s)
        assert seen.error.startswith("cannot start a: ")


async def test_stop_asks_first(tmp_path):
    code = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            print("up", flush=True)
            time.sleep(600)
        finally:
            print("asked", flush=True)
    """
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, code)])
        await until(lambda: written(tmp_path / "a.log", "up"))
        await runtime.stop("a")
        assert runtime.observe() == {}
    assert "asked" in (tmp_path / "a.log").read_text()


async def test_stop_kills_what_does_not_listen(tmp_path):
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, DEAF, grace_seconds=0.1)])
        seen = await running(runtime)
        await until(lambda: written(tmp_path / "a.log", "deaf"))
        await runtime.stop("a")
        assert not alive(seen.pid)


async def test_caller_who_gives_up_waiting_does_not_end_the_stop(tmp_path):
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, DEAF, grace_seconds=0.3)])
        seen = await running(runtime)
        await until(lambda: written(tmp_path / "a.log", "deaf"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(runtime.stop("a"), 0.05)
        assert alive(seen.pid)
        await until(lambda: not runtime.observe(), what="the stop's end")
        assert not alive(seen.pid)


async def test_stop_during_back_off_is_immediate(tmp_path):
    policy = RestartPolicy(first_delay=300, max_delay=300)
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, "raise SystemExit(1)", restart=policy)])
        await until(lambda: runtime.observe()["a"].failures == 2)
        await asyncio.wait_for(runtime.stop("a"), 5)


async def test_whole_group_goes_with_its_process(tmp_path):
    code = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("grandchild", child.pid, flush=True)
        time.sleep(600)
    """
    log = tmp_path / "a.log"
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, code)])
        seen = await running(runtime)
        await until(lambda: written(log, "grandchild"))
        grandchild = int(log.read_text().split()[1])
        os.kill(seen.pid, signal.SIGKILL)
        await until(lambda: not alive(grandchild), what="the grandchild's end")


async def test_desired_set_leaves_the_same_alone(tmp_path):
    async with Runtime() as runtime:
        a, b, c = (python(tmp_path, SLEEP, name) for name in "abc")
        runtime.keep([a, b])
        before_a, before_b = await running(runtime, "a"), await running(runtime, "b")
        changed = python(tmp_path, SLEEP, "b", env={"CHANGED": "1"})
        runtime.keep([a, changed, c])
        await running(runtime, "c")
        after_b = await until(
            lambda: (
                (s := runtime.observe()["b"]).phase is Phase.RUNNING and s.pid != before_b.pid and s
            )
        )
        assert runtime.observe()["a"] == before_a, "an unchanged process was touched"
        assert not alive(before_b.pid), "the old one still ran beside its replacement"
        # Empty for a moment, while the launcher becomes the command.
        await until(lambda: environment(after_b.pid).get("CHANGED") == "1")
        runtime.keep([])
        await until(lambda: not runtime.observe(), what="an empty set")


def test_difference_of_two_sets():
    def spec(name, **fields):
        return ProcessSpec(name, ("true",), Path("log"), **fields)

    current = {"same": spec("same"), "gone": spec("gone"), "new env": spec("new env")}
    desired = {"same": spec("same"), "new env": spec("new env", env={"A": "1"}), "new": spec("new")}
    todo = difference(current, desired)
    assert todo.stop == {"gone", "new env"}
    assert todo.start == (desired["new env"], desired["new"])


async def test_changes_are_announced(tmp_path):
    names = []
    async with Runtime(names.append) as runtime:
        runtime.keep([python(tmp_path, SLEEP)])
        await running(runtime)
        names.clear()
        await runtime.stop("a")
        assert set(names) == {"a"}


async def test_end_of_the_block_kills_even_when_an_error_ends_it(tmp_path):
    pids = []

    async def fail():
        async with Runtime() as runtime:
            runtime.keep([python(tmp_path, DEAF, grace_seconds=600)])
            pids.append((await running(runtime)).pid)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    assert not alive(pids[0])


async def test_end_of_the_block_right_after_the_start(tmp_path):
    marker = f"{tmp_path}"
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, DEAF, name, env={"MARK": marker}) for name in "abcd"])
        await asyncio.sleep(0)
    assert not processes_marked(marker)


async def test_kill_reaches_a_process_that_is_only_being_started(tmp_path, monkeypatch):
    # Ignored here, ignored by the child from its first instruction: only SIGKILL ends it.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        began = time.monotonic()
        async with Runtime() as runtime:
            runtime.keep([python(tmp_path, SLEEP, grace_seconds=30)])
            await asyncio.sleep(0)
        assert time.monotonic() - began < 10, "the block's end waited for the grace"
    finally:
        signal.signal(signal.SIGTERM, before)


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
import stageline_local.child
from stageline_local.process import ProcessSpec
from stageline_local.runtime import Runtime

stageline_local.child.KERNEL_KILLS_ORPHANS = sys.argv[2] == "kernel"
code = (
    "import signal, subprocess, sys, time\\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
    "print('up', flush=True)\\n"
    "time.sleep(600)"
)

async def main():
    folder = Path(sys.argv[1])
    async with Runtime() as runtime:
        specs = [ProcessSpec(n, (sys.executable, "-c", code), folder / f"{n}.log") for n in "abc"]
        runtime.keep(specs)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("way", ["kernel", "pipe"])
async def test_sigkill_of_the_supervisor_leaves_no_process(tmp_path, way):
    marker = f"{tmp_path}"
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SUPERVISOR, str(tmp_path), way),
        env={**os.environ, "MARK": marker},
    )
    try:
        for name in "abc":
            await until(lambda name=name: written(tmp_path / f"{name}.log", "up"))
        assert len(processes_marked(marker)) >= 4
    finally:
        supervisor.kill()
        await supervisor.wait()
    await until(lambda: not processes_marked(marker), what="the end of all orphans")


async def test_pipe_watches_where_no_kernel_does(tmp_path, monkeypatch):
    monkeypatch.setattr(stageline_local.child, "KERNEL_KILLS_ORPHANS", False)
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, SLEEP, env={"MARK": f"{tmp_path}"})])
        first = await running(runtime)
        os.kill(first.pid, signal.SIGKILL)
        await running(runtime, restarts=1)
    await until(lambda: not processes_marked(f"{tmp_path}"), what="the watchers' end")


async def test_restart_ends_one_life_and_begins_another(tmp_path):
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, DEAF, previous_log=tmp_path / "a.previous")])
        first = await running(runtime)
        await until(lambda: written(tmp_path / "a.log", "deaf"))
        runtime.restart("a", grace_seconds=0.1)
        second = await running(runtime, restarts=1)
        assert second.pid != first.pid
        assert second.exit_code == 137
        assert first.started <= second.last.started <= second.last.ended <= second.started
        assert written(tmp_path / "a.previous", "deaf")
        await until(lambda: (tmp_path / "a.log").read_text() == "deaf\n")


async def test_one_process_is_killed_and_no_other(tmp_path):
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, SLEEP), python(tmp_path, SLEEP, name="b")])
        one, other = await running(runtime, "a"), await running(runtime, "b")
        runtime.kill("a")
        await until(lambda: "a" not in runtime.observe())
        assert not alive(one.pid)
        assert alive(other.pid)


async def test_stop_may_shorten_the_grace(tmp_path):
    async with Runtime() as runtime:
        runtime.keep([python(tmp_path, DEAF, grace_seconds=600.0)])
        seen = await running(runtime)
        await until(lambda: written(tmp_path / "a.log", "deaf"))
        await asyncio.wait_for(runtime.stop("a", grace_seconds=0.1), 10)
        assert not alive(seen.pid)
