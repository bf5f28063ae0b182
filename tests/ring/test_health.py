"""What a kubelet may ask a worker: is it alive, has it its layers."""

import functools
import socket
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stageline_api.documents import StageDocument
from stageline_wire.address import bracketed
from stageline_worker.channel import open_channel
from stageline_worker.server import WorkerServer
from support.pipeline import QUICK, LocalPipeline, process_pipeline, stage_documents
from support.toy import holding, toy

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def check(channel: grpc.Channel, service: str, seconds: float = 10.0) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    return stub.Check(request, timeout=seconds, wait_for_ready=True).status


def watching(channel: grpc.Channel, service: str):
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=20)


def until(condition, what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in 10 s"
        time.sleep(0.01)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_worker_is_alive_at_once_and_ready_with_its_own_layers(stage):
    let_go = threading.Event()

    def load(document, progress):
        assert let_go.wait(10), "nobody let it load"
        return toy(document, progress)

    document = stage_documents("/toy", [1, 1])[stage]  # the other one never comes
    worker = WorkerServer(document, load, QUICK)
    worker.start()
    try:
        with open_channel(document.listen) as channel:
            assert check(channel, "") == SERVING
            assert check(channel, "stage") == NOT_SERVING
            seen = watching(channel, "stage")
            assert next(seen).status == NOT_SERVING
            let_go.set()
            assert next(seen).status == SERVING
            seen.cancel()
            assert check(channel, "stage") == SERVING
    finally:
        let_go.set()
        worker.stop()


def test_a_leader_that_drains_is_alive_and_not_ready():
    def slowly(document, progress):
        return toy(document, progress, delay=0.02)

    with LocalPipeline(stage_documents("/toy", [1]), slowly, QUICK) as pipeline:
        pipeline.start()
        pipeline.wait_ready()
        with pipeline.router() as router, open_channel(pipeline.leader) as channel:
            router.generate("last", [1], max_tokens=40, ignore_eos=True)
            router.wait(lambda: router.tokens["last"])
            stopping = threading.Thread(target=pipeline.stop)
            stopping.start()
            until(lambda: check(channel, "stage") == NOT_SERVING, "the end of readiness")
            assert check(channel, "") == SERVING
            assert len(router.tokens_of("last")) == 40
            stopping.join()


def test_a_worker_that_failed_to_load_is_not_ready():
    def load(document, progress):
        raise RuntimeError("no such layers")

    document = stage_documents("/toy", [1])[0]
    worker = WorkerServer(document, load, QUICK)
    worker.start()
    try:
        assert "no such layers" in worker.wait(10)
        with open_channel(document.listen) as channel:
            assert check(channel, "stage") == NOT_SERVING
    finally:
        worker.stop()


def test_a_load_that_holds_the_interpreter_delays_liveness_and_does_not_deny_it():
    held = 1.5
    load = functools.partial(holding, seconds=held)
    with process_pipeline("/toy", [1], load=load) as pipeline:
        longest, checks = 0.0, 0
        with open_channel(pipeline.leader) as channel:
            ready = False
            while not ready:
                began = time.monotonic()
                assert check(channel, "") == SERVING
                longest, checks = max(longest, time.monotonic() - began), checks + 1
                ready = check(channel, "stage") == SERVING
    assert checks > 2
    assert longest < 2 * held + 1, "a probe must be answered as soon as the lock is free"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.7:7070", "10.0.0.7:7070"),
        ("fd00::7:7070", "[fd00::7]:7070"),
        ("::1:7070", "[::1]:7070"),
        ("[fd00::7]:7070", "[fd00::7]:7070"),
        ("llama-0.llama.ns.svc:7070", "llama-0.llama.ns.svc:7070"),
        ("nonsense", "nonsense"),
    ],
)
def test_an_ipv6_host_is_bracketed(address, expected):
    assert bracketed(address) == expected


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no address ::1")
def test_a_worker_listens_on_an_ipv6_address_as_kubernetes_expands_it():
    document = stage_documents("/toy", [1])[0]
    port = document.listen.rpartition(":")[2]
    listen = {"listen": f"::1:{port}", "addresses": (f"[::1]:{port}",)}
    document = StageDocument.model_validate({**document.model_dump(), **listen})
    with LocalPipeline([document], toy, QUICK) as pipeline:
        pipeline.start()
        pipeline.wait_ready()
