"""The router as a server: health, reflection, its document, its end, pipelines that come and go."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.utils import InferenceServerException

from stageline_router.server import SERVICE
from support.clients import infer, outcome, text_input, triton_input
from support.front import front_door, router, router_document
from support.lettered import lettered
from support.pipeline import free_ports, local_pipeline, process_pipeline
from support.zoo import checkpoint

IDS = np.array([[5, 6, 7]])


def health(address: str, service: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


def wait_for(condition, what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds} s"
        time.sleep(0.02)


@contextmanager
def process(document, folder, *arguments):
    """The router as its own process, as it is started in production."""
    path = folder / "router.json"
    path.write_text(document.model_dump_json())
    command = [sys.executable, "-m", "stageline_router", "--document", str(path), *arguments]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield running, path
    finally:
        running.kill()
        running.wait()
        running.stderr.close()


def answers(address: str) -> bool:
    with triton.InferenceServerClient(address) as client:
        try:
            return client.is_model_ready("model")
        except InferenceServerException:
            return False


@pytest.mark.parametrize("model", ["model", "router"])
def test_health_tells_a_live_router_from_one_that_would_answer(model):
    with ExitStack() as stack:
        pipeline = stack.enter_context(local_pipeline(checkpoint("bert"), [3, 3]))
        document = router_document(checkpoint("bert"), [pipeline.leader], model=model)
        front = stack.enter_context(router(document))
        answering = {SERVICE, model} - {"router"}

        def wait_answering(expected: int) -> None:
            for name in answering:
                wait_for(
                    lambda name=name: health(front.address, name) == expected,
                    f"{expected} as the health of {name!r}",
                )
            assert [health(front.address, name) for name in ("", "router")] == [1, 1]

        wait_answering(1)
        front.run(front.server.update(document.model_copy(update={"pipelines": ()})))
        wait_answering(2)


def test_a_router_that_drains_is_no_longer_ready():
    with (
        router(router_document(checkpoint("bert"), [])) as front,
        grpc.insecure_channel(front.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch
        seen = watch(health_pb2.HealthCheckRequest(service="router"), timeout=20)
        assert next(seen).status == 1
        stopping = asyncio.run_coroutine_threadsafe(front.server.stop(grace=2), front.loop)
        assert next(seen).status == 2
        seen.cancel()
        stopping.result(10)


def test_reflection_describes_every_service():
    with (
        front_door(checkpoint("bert"), [6]) as front,
        grpc.insecure_channel(front.address) as channel,
    ):
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
        file = database.FindFileContainingSymbol(SERVICE)
        (service,) = file.service
        assert "ModelInfer" in [method.name for method in service.method]
        assert database.FindFileContainingSymbol("grpc.health.v1.Health").package


def test_nobody_ready_is_said_with_the_stage_that_is_missing():
    documents_only = router_document(checkpoint("bert"), [f"127.0.0.1:{free_ports(1)[0]}"])
    with (
        router(documents_only) as front,
        triton.InferenceServerClient(front.address) as client,
    ):
        assert client.is_server_live()
        assert not client.is_server_ready()
        with pytest.raises(InferenceServerException, match="cannot be reached") as refused:
            infer(client, triton_input("input_ids", IDS), client_timeout=1.0)
        assert "UNAVAILABLE" in refused.value.status()


def test_a_request_is_held_until_the_pipeline_is_ready():
    with ExitStack() as stack:
        pipeline = stack.enter_context(local_pipeline(checkpoint("bert"), [3, 3]))
        document = router_document(checkpoint("bert"), [pipeline.leader])
        front = stack.enter_context(router(document))
        client = stack.enter_context(triton.InferenceServerClient(front.address))
        assert infer(client, triton_input("input_ids", IDS)).as_numpy("pooler_output").any()


def test_a_killed_stage_ends_what_was_in_flight_with_its_name_and_the_next_is_answered():
    with ExitStack() as stack:
        pipeline = stack.enter_context(process_pipeline(checkpoint("llama"), [2, 2, 2]))
        pipeline.wait_ready()
        document = router_document(checkpoint("llama"), [pipeline.leader])
        front = stack.enter_context(router(document))
        client = stack.enter_context(triton.InferenceServerClient(front.address))
        infer(client, triton_input("input_ids", IDS))
        pipeline.kill(1)
        pipeline.restart(1)
        given = triton_input("input_ids", IDS)
        while isinstance(error := outcome(client, given), InferenceServerException):
            assert "UNAVAILABLE" in error.status(), error
            assert "stage 1" in error.message(), error
        report = pipeline.wait_ready(sessions=2)
        assert [stage.loads for stage in report.stages] == [1, 1, 1], "a survivor loaded again"


def test_an_address_that_is_now_another_pipelines_gets_no_request():
    with ExitStack() as stack:
        pipeline = stack.enter_context(local_pipeline(checkpoint("bert"), [6], pipeline="other-0"))
        pipeline.wait_ready()
        document = router_document(checkpoint("bert"), [pipeline.leader])
        front = stack.enter_context(router(document))
        client = stack.enter_context(triton.InferenceServerClient(front.address))
        with pytest.raises(InferenceServerException, match="the leader of other-0 of revision r1"):
            infer(client, triton_input("input_ids", IDS), client_timeout=2.0)


def test_a_leader_that_dies_is_found_again():
    with ExitStack() as stack:
        pipeline = stack.enter_context(process_pipeline(checkpoint("bert"), [3, 3]))
        pipeline.wait_ready()
        document = router_document(checkpoint("bert"), [pipeline.leader])
        front = stack.enter_context(router(document))
        client = stack.enter_context(triton.InferenceServerClient(front.address))
        infer(client, triton_input("input_ids", IDS))
        pipeline.kill(0)
        wait_for(lambda: not client.is_server_ready(), "the news that the leader is gone")
        pipeline.restart(0)
        infer(client, triton_input("input_ids", IDS))


def test_the_process_serves_follows_its_document_and_drains(tmp_path):
    with ExitStack() as stack:
        pipeline = stack.enter_context(local_pipeline(checkpoint("bert"), [3, 3]))
        address = f"127.0.0.1:{free_ports(1)[0]}"
        document = router_document(checkpoint("bert"), [], listen=address)
        running, path = stack.enter_context(process(document, tmp_path))
        wait_for(lambda: _reachable(address), "the router's port")
        assert not answers(address), "it has no pipeline yet"
        path.write_text("{")  # a broken version changes nothing
        with_pipeline = router_document(checkpoint("bert"), [pipeline.leader], listen=address)
        temporary = path.with_suffix(".new")
        temporary.write_text(with_pipeline.model_dump_json())
        temporary.replace(path)
        wait_for(lambda: answers(address), "the pipeline of the new document")
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait(20) == 0
        assert "Traceback" not in running.stderr.read()


@pytest.mark.parametrize(("drain", "whole"), [(20.0, True), (0.0, False)])
def test_what_was_accepted_is_finished_within_the_time_to_drain(tmp_path, drain, whole):
    with ExitStack() as stack:
        pipeline = stack.enter_context(local_pipeline(lettered(), [3, 3]))
        address = f"127.0.0.1:{free_ports(1)[0]}"
        document = router_document(
            lettered(), [pipeline.leader], listen=address, drain_seconds=drain
        )
        running, _ = stack.enter_context(process(document, tmp_path))
        wait_for(lambda: answers(address), "the pipeline")
        assert [health(address, name) for name in ("", "router")] == [1, 1]
        client = stack.enter_context(triton.InferenceServerClient(address))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        options = {"parameters": {"max_tokens": 250, "ignore_eos": True}}
        answer = pool.submit(outcome, client, text_input("a"), **options)
        pipeline.wait_until(lambda report: report.sequences == 1, "the generation")
        os.kill(running.pid, signal.SIGTERM)
        assert isinstance(answer.result(30), InferenceServerException) != whole
        assert running.wait(20) == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [("{", "router document"), ('{"model": "m"}', "listen"), (None, "cannot be read")],
)
def test_a_document_that_cannot_be_read_is_one_sentence(tmp_path, change, word):
    path = tmp_path / "router.json"
    if change is not None:
        path.write_text(change)
    ran = subprocess.run(
        [sys.executable, "-m", "stageline_router", "--document", str(path)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert ran.returncode == 1
    assert word in ran.stderr, ran.stderr
    assert ran.stderr.count("\n") == 1, f"not one sentence: {ran.stderr}"


def test_a_port_in_use_is_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        document = router_document(checkpoint("bert"), [], listen=address)
        with process(document, tmp_path) as (running, _):
            assert running.wait(20) == 1
            said = running.stderr.read()
    assert f"{address} cannot be bound" in said
    assert said.count("\n") == 1, f"not one sentence: {said}"


def _reachable(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
