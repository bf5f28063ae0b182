"""The supervisor over small real servers that stand in for stages and router."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from stageline_local.ports import free_ports
from stageline_local.process import ProcessSpec
from stageline_local.restarts import RestartPolicy
from stageline_local.supervisor import GaveUp, Supervisor
from support.layouts import layout
from support.processes import alive, until

# A leader that reports a ring of one serving stage, or a router that calls its model ready. On
# SIGTERM it writes the time down and goes.
SERVER = """
import signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import grpc
from stageline.oip import grpc_service_pb2 as oip, grpc_service_pb2_grpc as oip_grpc
from stageline.v1 import pipeline_pb2 as v1, pipeline_pb2_grpc as v1_grpc

class Leader(v1_grpc.PipelineServicer):
    def Watch(self, request, context):
        stage = v1.WorkerReport(stage=0, state=v1.SERVING)
        yield v1.PipelineReport(state=v1.READY, stages=[stage])
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait()

class Router(oip_grpc.GRPCInferenceServiceServicer):
    def ModelReady(self, request, context):
        return oip.ModelReadyResponse(ready=request.name == "m")

address, ended = sys.argv[1:]
server = grpc.server(ThreadPoolExecutor(4))
v1_grpc.add_PipelineServicer_to_server(Leader(), server)
oip_grpc.add_GRPCInferenceServiceServicer_to_server(Router(), server)
server.add_insecure_port(address)
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
server.start()
asked.wait()
with open(ended, "w") as file:
    file.write(str(time.monotonic()))
server.stop(0).wait()
"""
DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[2], "w").close()
time.sleep(600)
"""
FAST = RestartPolicy(first_delay=0.02, max_delay=0.1)


class Trial:
    def __init__(self, folder: Path, code=SERVER, router_code=SERVER):
        router, leader = free_ports(2)
        self.folder = folder
        self.layout = layout(partition=(6,), ports=(leader,), router=router)
        self.views = []
        self.supervisor = Supervisor(
            self.layout,
            [
                self._spec("m-0-stage-0", code, self.layout.pipelines[0].leader),
                self._spec("m-router", router_code, self.layout.router.listen),
            ],
            self.views.append,
        )

    def _spec(self, name, code, address):
        command = (sys.executable, "-c", code, address, str(self.folder / f"{name}.ended"))
        return ProcessSpec(
            name, command, self.folder / f"{name}.log", restart=FAST, grace_seconds=30
        )

    def ended(self, name) -> float:
        return float((self.folder / f"{name}.ended").read_text())

    async def ready(self):
        await until(lambda: self.views and self.views[-1].ready, what="a view that is ready")

    def pids(self):
        observed = self.supervisor._runtime.observe().values()
        return [process.pid for process in observed if process.pid]


@pytest.fixture
async def running(tmp_path):
    tasks = []

    async def start(**code):
        trial = Trial(tmp_path, **code)
        task = asyncio.create_task(trial.supervisor.run())
        tasks.append(task)
        return trial, task

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_ready_then_stopped_router_first(running):
    trial, task = await running()
    await trial.ready()
    pids = trial.pids()
    assert len(pids) == 2
    trial.supervisor.stop()
    await asyncio.wait_for(task, 30)
    assert trial.ended("m-router") < trial.ended("m-0-stage-0"), "the stage went before the router"
    assert not any(map(alive, pids))
    assert [row.state for row in trial.views[-1].rows] == ["stopped", "stopped"]


async def test_leader_and_router_are_heard_again_after_a_restart(running):
    trial, task = await running()
    await trial.ready()
    for pid in trial.pids():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not trial.views[-1].ready, what="a view that is not ready")
    await trial.ready()
    await until(lambda: [row.restarts for row in trial.views[-1].rows] == [1, 1])
    trial.supervisor.stop()
    await asyncio.wait_for(task, 30)


async def test_kill_ends_what_will_not_stop(running):
    trial, task = await running(code=DEAF, router_code=DEAF)
    for name in ("m-router", "m-0-stage-0"):
        await until((trial.folder / f"{name}.ended").exists)
    pids = trial.pids()
    trial.supervisor.stop()
    await until(lambda: trial.views[-1].rows[1].state == "stopping", what="the router's stop")
    trial.supervisor.kill()
    began = time.monotonic()
    await asyncio.wait_for(task, 30)
    assert time.monotonic() - began < 5, "kill waited for the grace"
    assert not any(map(alive, pids))


async def test_stop_is_bounded(running, monkeypatch):
    monkeypatch.setattr("stageline_local.supervisor.STOP_SECONDS", 0.3)
    trial, task = await running(code=DEAF, router_code=DEAF)
    await until((trial.folder / "m-router.ended").exists)
    trial.supervisor.stop()
    await asyncio.wait_for(task, 5)


async def test_stage_that_never_comes_up_ends_everything_with_its_sentence(running):
    code = "raise SystemExit('the checkpoint has no config.json')"
    trial, task = await running(code=code)
    with pytest.raises(
        GaveUp, match="m-0-stage-0 died 3 times before it was up: the checkpoint has no config"
    ):
        await asyncio.wait_for(task, 30)
    assert trial.views[-1].rows[0].message == "the checkpoint has no config.json"


async def test_cancelled_supervisor_leaves_no_process(running):
    trial, task = await running()
    await trial.ready()
    pids = trial.pids()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert not any(map(alive, pids))
