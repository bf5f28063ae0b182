"""The runtime with real processes and real signals."""

import os
import signal
import time
from pathlib import Path

import pytest

from stageline_local.process import Phase, ProcessSpec
from stageline_local.restarts import Restart, RestartPolicy
from stageline_local.runtime import Runtime, difference
from support.processes import alive, environment, until, written
from support.supervised import DEAF, FAST, SLEEP, python, running

KILLED = "killed by SIGKILL (by hand, or by the system for want of memory)"


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
