"""How the runtime's processes end: stopped, killed, or with the one that keeps them."""

import asyncio
import os
import signal
import sys
import time

import pytest

import stageline_local.child
from stageline_local.restarts import RestartPolicy
from stageline_local.runtime import Runtime
from support.processes import alive, processes_marked, until, written
from support.supervised import DEAF, SLEEP, python, running


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
