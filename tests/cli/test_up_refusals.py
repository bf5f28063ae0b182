"""`stageline up` that must not start anything: each cause one sentence, exit code 1."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from stageline_cli.failure import Failure
from stageline_cli.main import app
from stageline_local.statedir import StateDir
from support.processes import until, written
from support.up import profiled, up, worker, write_manifest

DAMAGED = profiled("sys.exit('the layers are damaged')")


def refusal(folder, path) -> str:
    result = CliRunner().invoke(app, ["up", str(path), "--state-dir", str(folder / "state")])
    assert isinstance(result.exception, Failure), result.output
    return str(result.exception)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("stages: 2", "stages: 0", "spec.pipeline.stages"),
        ("stages: 2", "stage: 2", "spec.pipeline.stage"),
        ("kind: Pipeline", "kind: [Pipeline", "is not YAML"),
        ("kind: PipelineDeployment", "kind: Deployment", "kind must be PipelineDeployment"),
        ("spec:", "spec:\n  replicas: 0", "tiny has 0 replicas, so nothing to start"),
    ],
)
def test_wrong_manifests(tmp_path, old, new, sentence):
    path, _ = write_manifest(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    assert sentence in refusal(tmp_path, path)


def test_missing_file(tmp_path):
    assert refusal(tmp_path, tmp_path / "none.yaml").endswith("no such file or directory")


def test_package_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("stageline_cli.machine._NEEDS", ("asyncio", "no_such_package"))
    path, _ = write_manifest(tmp_path)
    told = refusal(tmp_path, path)
    assert told.endswith("(no_such_package not installed): pip install 'stageline[local]'")


def test_port_that_is_taken(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path, _ = write_manifest(tmp_path, port=port)
        assert refusal(tmp_path, path).startswith(f"port {port} of 127.0.0.1 is taken")


def test_second_up_of_the_same_name(tmp_path):
    path, _ = write_manifest(tmp_path)
    with StateDir(tmp_path / "state", "tiny"):
        assert "tiny is already up" in refusal(tmp_path, path)


@pytest.mark.parametrize(("trap", "stops"), [("", "True"), ("trap '' HUP;", "False")])
def test_nohup_is_obeyed(trap, stops):
    code = "import signal, stageline_cli.up as up; print(signal.SIGHUP in up._STOP_SIGNALS)"
    done = subprocess.run(
        ["bash", "-c", f'{trap} exec "$0" -c "{code}"', sys.executable],
        capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    assert done.stdout.strip() == stops


def test_model_that_is_not_there(tmp_path):
    path, _ = write_manifest(tmp_path)
    assert refusal(tmp_path, path) == "/nowhere, the model of tiny, is no folder here"


def test_model_on_a_volume(tmp_path):
    path, _ = write_manifest(tmp_path)
    path.write_text(path.read_text().replace("file:///nowhere", "pvc://claim/folder"))
    told = refusal(tmp_path, path)
    assert told.startswith("spec.model.uri pvc://claim/folder of tiny is a volume of a real")


async def test_stop_while_the_model_is_profiled(tmp_path):
    started = tmp_path / "started"
    slow = worker(
        tmp_path,
        f"""
        import pathlib, time
        pathlib.Path({str(started)!r}).write_text("started")
        time.sleep(600)
        """,
    )
    path, _ = write_manifest(tmp_path, tmp_path)
    async with up(tmp_path, path, **slow) as running:
        await until(lambda: written(started, "started"), what="the profile's start")
        running.signal(signal.SIGINT)
        assert await running.end() == 0
    assert running.errors == []


async def test_second_signal_kills_what_will_not_stop(tmp_path):
    started = tmp_path / "started"
    deaf = worker(
        tmp_path,
        f"""
        import pathlib, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path({str(started)!r}).write_text("started")
        time.sleep(600)
        """,
    )
    path, _ = write_manifest(tmp_path, tmp_path)
    async with up(tmp_path, path, **deaf) as running:
        await until(lambda: written(started, "started"), what="the profile's start")
        running.signal(signal.SIGINT)
        await running.line("stopping")
        began = time.monotonic()
        await asyncio.sleep(0.5)  # any sooner it would be the same Ctrl-C
        running.signal(signal.SIGINT)
        assert await running.end() == 130
    assert time.monotonic() - began < 10, "it waited for what would not stop"
    assert running.errors == []


async def test_profile_that_fails(tmp_path):
    path, _ = write_manifest(tmp_path, tmp_path)
    async with up(tmp_path, path, **worker(tmp_path, "raise SystemExit('no config.json')")) as it:
        assert await it.end() == 1
    assert it.errors == ["no config.json", f"Logs are in {tmp_path}/state/tiny/logs."]


async def test_model_that_cannot_be_cut_so(tmp_path):
    path, _ = write_manifest(tmp_path, tmp_path, stages=9)
    async with up(tmp_path, path, **worker(tmp_path, DAMAGED)) as running:
        assert await running.end() == 1
    assert running.errors[0].startswith("tiny has 6 layers, too few for 9 stages: lower spec.")


async def test_stage_that_never_comes_up(tmp_path):
    path, _ = write_manifest(tmp_path, tmp_path)
    async with up(tmp_path, path, **worker(tmp_path, DAMAGED)) as running:
        assert await running.end() == 1
    sentence = r"tiny-\w+-0-[01] died 3 times before it was up: the layers are damaged"
    assert re.fullmatch(sentence, running.errors[0])
    assert [line for line in running.lines if "slowest stage" in line], "no plan was shown"
