"""`stageline up` end to end: a real checkpoint, real workers, a real router, real signals."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import grpc

from stageline.v1 import pipeline_pb2 as v1
from stageline.v1.pipeline_pb2_grpc import PipelineStub
from stageline_local.layout import ROUTER_GRACE_SECONDS
from support.processes import environment, processes_marked, until
from support.up import up, write_manifest
from support.zoo import checkpoint


async def stageline(*arguments):
    """Exit code and stdout of a command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stageline_cli.main", *arguments), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def reported(folder) -> v1.PipelineReport:
    """What the leader says now."""
    document = json.loads((folder / "state" / "tiny" / "tiny-0-stage-0.json").read_text())
    async with grpc.aio.insecure_channel(document["addresses"][0]) as channel:
        async for report in PipelineStub(channel).Watch(v1.WatchRequest()):
            return report
    raise AssertionError("the leader sent no report")


def process_of(folder, name) -> int:
    """The process that was started with the document of this name."""
    for pid in processes_marked(str(folder)):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if any(word.endswith(f"{name}.json") for word in command):
            return pid
    raise AssertionError(f"no process {name} runs")


async def test_serve_heal_and_stop(tmp_path):
    path, port = write_manifest(tmp_path, checkpoint("bert"))
    address = f"127.0.0.1:{port}"
    call = ("infer", "--address", address, "--input", "input_ids=[[5, 6, 7]]", "--json")
    async with up(tmp_path, path) as running:
        await running.line(f"tiny is ready at {address}")
        assert "stage  layers" in running.lines[0], "no plan before the start"
        router = json.loads((tmp_path / "state" / "tiny" / "tiny-router.json").read_text())
        assert router["drain_seconds"] < ROUTER_GRACE_SECONDS, "it would be killed while it drains"
        code, before = await stageline(*call)
        assert code == 0

        stage = process_of(tmp_path, "tiny-0-stage-1")
        assert environment(stage)["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "1")
        os.kill(stage, signal.SIGKILL)
        await running.line("restarts 1")
        await running.line(f"tiny is ready again at {address}")
        report = await reported(tmp_path)
        assert [worker.loads for worker in report.stages] == [1, 1], "a survivor loaded again"
        assert report.sessions >= 2
        code, after = await stageline(*call)
        assert (code, after) == (0, before), "the answer changed with the restart"

        running.signal(signal.SIGINT)
        assert await running.end() == 0
    assert running.errors == []
    assert any("tiny-0 stage 1" in line and "killed by SIGKILL" in line for line in running.lines)


async def test_stop_while_stages_start(tmp_path):
    path, _ = write_manifest(tmp_path, checkpoint("bert"))
    async with up(tmp_path, path) as running:
        await running.line("starting")
        await until(lambda: len(processes_marked(str(tmp_path))) >= 4, what="four processes")
        running.signal(signal.SIGTERM)
        assert await running.end() == 0
    assert running.errors == []


async def test_reader_that_goes_stops_everything(tmp_path):
    path, _ = write_manifest(tmp_path, checkpoint("bert"))
    command = f'"$0" -m stageline_cli.main up "{path}" --state-dir "{tmp_path}" | head -n 4'
    process = await asyncio.create_subprocess_exec(
        *("bash", "-o", "pipefail", "-c", command, sys.executable),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "MARK": str(tmp_path)},
    )
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert (len(out.splitlines()), errors) == (4, b"")
    await until(lambda: not processes_marked(str(tmp_path)), what="the end of every process")
