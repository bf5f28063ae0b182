"""The command line as a process: help, exit codes, closed pipes, no traceback."""

import os
import subprocess
import sys

import pytest

COMMANDS = ["up", "plan", "status", "infer", "generate"]


def stageline(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "stageline_cli.main", *arguments],
        capture_output=True, text=True, timeout=60, **more,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(command):
    done = stageline(command, "--help")
    assert done.returncode == 0
    assert f"stageline {command} " in done.stdout.partition("xample")[2], "no example in the help"


def test_help_lists_every_command():
    done = stageline("--help")
    listed = done.stdout.partition("Commands:")[2]
    assert all(f"\n  {command} " in listed for command in COMMANDS)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['stageline', 'up', '--help']\n"
        "from stageline_cli.main import main\n"
        "try: main()\n"
        "finally: print([m for m in ('grpc', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version():
    assert stageline("--version").stdout.startswith("stageline 0.")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["up"], ["up", "x.yaml", "--port", "0"], ["generate"]]
)
def test_wrong_usage_exits_with_2(arguments):
    done = stageline(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_failure_is_one_sentence_on_stderr():
    done = stageline("infer", "--text", "a", "--address", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nothing answers at 127.0.0.1:1: ")
    assert len(done.stderr.splitlines()) == 1


def test_bug_says_that_it_is_one():
    code = (
        "import sys; sys.argv = ['stageline', 'infer', '--text', 'a']\n"
        "from stageline_cli import client, main\n"
        "def broken(address): raise KeyError('on purpose')\n"
        "client.connect = broken\n"
        "main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "KeyError: 'on purpose'" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("This is a bug in Stageline")


def test_reader_that_has_gone_makes_no_traceback():
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "stageline_cli.main", "--help"],
            stdout=write, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    finally:
        os.close(write)
    assert done.stderr == ""
