"""A stage fails on one row of a microbatch: who shares it is unharmed. The toy has such a row."""

from __future__ import annotations

import functools

import grpc
import numpy as np
import pytest

from stageline.oip import grpc_service_pb2 as oip
from stageline.oip import grpc_service_pb2_grpc as services
from support.front import router, router_document
from support.pipeline import local_pipeline
from support.toy import toy, toy_sums

POISON = 13
STAGES = 2


@pytest.fixture(scope="module")
def stub():
    load = functools.partial(toy, poison=POISON)
    with local_pipeline("/toy", [1] * STAGES, load=load) as pipeline:
        pipeline.wait_ready()
        # Rows wait long enough to meet: who is sent together comes together.
        document = router_document(
            "/toy", [pipeline.leader], max_batch_size=4, max_delay_milliseconds=200
        )
        with router(document) as front, grpc.insecure_channel(front.address) as channel:
            yield services.GRPCInferenceServiceStub(channel)


def request(*rows: list[int]) -> oip.ModelInferRequest:
    array = np.array(rows, dtype=np.int64)
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="input_ids", datatype="INT64", shape=array.shape
    )
    return oip.ModelInferRequest(
        model_name="model", inputs=[tensor], raw_input_contents=[array.tobytes()]
    )


def sums(response: oip.ModelInferResponse) -> list[list[float]]:
    names = [output.name for output in response.outputs]
    at = names.index("sums")
    raw = np.frombuffer(response.raw_output_contents[at], dtype=np.float64)
    return raw.reshape(response.outputs[at].shape).tolist()


def test_only_the_request_that_a_stage_fails_on_fails(stub):
    rows = [[1, 2], [3, POISON], [5, 6], [7, 8]]
    calls = [stub.ModelInfer.future(request(row), timeout=30) for row in rows]
    failed = calls.pop(1).exception(30)
    assert failed.code() is grpc.StatusCode.INTERNAL
    assert "stage 0 failed" in failed.details()
    for call, row in zip(calls, (rows[0], *rows[2:]), strict=True):
        assert sums(call.result(30)) == [toy_sums(row, STAGES)]


def test_a_large_request_fails_whole_and_harms_nobody(stub):
    bad = [[row, row + 1] for row in range(20, 30)]
    bad[6] = [POISON, 1]
    spoiled = stub.ModelInfer.future(request(*bad), timeout=30)
    good = [[row, 50] for row in range(40, 46)]
    fine = stub.ModelInfer.future(request(*good), timeout=30)
    assert spoiled.exception(30).code() is grpc.StatusCode.INTERNAL
    assert sums(fine.result(30)) == [toy_sums(row, STAGES) for row in good]
