"""`stageline up` end to end: a real checkpoint, real workers, a real router, real signals."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from stageline_cli.summary import condition
from support.processes import environment, processes_marked, until
from support.up import (
    PIPELINE_DEPLOYMENT,
    container,
    profiled,
    stageline,
    up,
    worker,
    write_manifest,
)
from support.zoo import checkpoint

SLEEPERS = profiled("time.sleep(600)")
PLACE = PIPELINE_DEPLOYMENT.place("default", "tiny")


def process_of(pod) -> int:
    return int(container(pod)["containerID"].removeprefix("process://"))


def operator_of(folder) -> int:
    """The process of the operator that runs for the test in this folder."""
    for pid in processes_marked(str(folder)):
        if b"stageline_operator" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("no operator runs")


async def test_serve_heal_refuse_and_stop(tmp_path):
    path, port = write_manifest(tmp_path, checkpoint("bert"))
    address = f"127.0.0.1:{port}"
    call = ("infer", "--address", address, "--input", "input_ids=[[5, 6, 7]]", "--json")
    async with up(tmp_path, path, OMP_NUM_THREADS="1") as running:
        await running.line(f"tiny is ready at {address}")
        await running.line("try: stageline infer --input input_ids=@input_ids.npy")
        first = next(i for i, line in enumerate(running.lines) if "stage  layers" in line)
        ready = next(i for i, line in enumerate(running.lines) if "Ready True" in line)
        assert first < ready, "the plan was not shown before the stages came"
        code, before = await stageline(*call)
        assert code == 0

        pods = await running.pods()
        stage = process_of(pods[1])
        assert environment(stage)["OMP_NUM_THREADS"] == "1", "the user's choice was not obeyed"
        os.kill(stage, signal.SIGKILL)
        await running.line(f"tiny is ready again at {address}")
        stages = (await running.status())["status"]["stages"]
        assert [stage["loads"] for stage in stages] == [1, 1], "a survivor loaded again"
        assert [stage.get("restarts", 0) for stage in stages] == [0, 1]
        assert process_of((await running.pods())[0]) == process_of(pods[0])
        code, after = await stageline(*call)
        assert (code, after) == (0, before), "the answer changed with the restart"

        os.kill(operator_of(tmp_path), signal.SIGKILL)
        await running.line("the operator ended (killed by SIGKILL")
        async with running.api() as client:
            await client.merge_patch(PLACE, {"spec": {"pipeline": {"stages": 99}}})
            await running.line("Stalled True PlanRefused")
            assert (await stageline(*call)) == (0, before), "a wrong spec stopped what serves"
            await client.merge_patch(PLACE, {"spec": {"pipeline": {"stages": 2}}})
            await running.line("Stalled False")

        running.signal(signal.SIGINT)
        assert await running.end() == 0
    assert running.errors == []


async def test_stop_while_stages_start(tmp_path):
    path, _ = write_manifest(tmp_path, checkpoint("bert"))
    async with up(tmp_path, path) as running:
        await running.line("slowest stage")
        await until(lambda: len(processes_marked(str(tmp_path))) >= 5, what="five processes")
        running.signal(signal.SIGTERM)
        assert await running.end() == 0
    assert running.errors == []


async def test_deletion_from_outside_ends_it(tmp_path):
    path, _ = write_manifest(tmp_path, tmp_path)
    async with up(tmp_path, path, **worker(tmp_path, SLEEPERS)) as running:
        await running.line("Starting")
        assert condition(await running.status(), "Planned")["status"] == "True"
        async with running.api() as client:
            await client.delete(PLACE)
        assert await running.end() == 0
    assert "tiny was deleted" in running.lines[-1]
    assert running.errors == []


async def test_reader_that_goes_stops_everything(tmp_path):
    path, _ = write_manifest(tmp_path, tmp_path)
    command = f'"$0" -m stageline_cli.main up "{path}" --state-dir "{tmp_path}" | head -n 4'
    process = await asyncio.create_subprocess_exec(
        *("bash", "-o", "pipefail", "-c", command, sys.executable),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "MARK": str(tmp_path), **worker(tmp_path, SLEEPERS)},
    )
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert (len(out.splitlines()), errors) == (4, b"")
    await until(lambda: not processes_marked(str(tmp_path)), what="the end of every process")
