"""Wrong requests: refused with a sentence, and the next one is answered."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from stageline.oip import grpc_service_pb2 as oip
from stageline.oip import grpc_service_pb2_grpc as services
from stageline_router.server import MAX_REQUEST_BYTES
from support.front import front_door
from support.lettered import lettered
from support.zoo import VOCABULARY, checkpoint

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Tensor = oip.ModelInferRequest.InferInputTensor


@pytest.fixture(scope="module")
def bert():
    with front_door(checkpoint("bert"), [3, 3], max_delay_milliseconds=30) as front:
        yield front


@pytest.fixture(scope="module")
def stub(bert):
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(bert.address, options=options) as channel:
        yield services.GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def writer():
    with (
        front_door(lettered(), [3, 3]) as front,
        grpc.insecure_channel(front.address) as channel,
    ):
        yield services.GRPCInferenceServiceStub(channel)


def request(*inputs: tuple, raw: list[bytes] | None = None, **fields) -> oip.ModelInferRequest:
    """Inputs as (name, datatype, shape) with their raw bytes beside them."""
    tensors = [Tensor(name=n, datatype=d, shape=s) for n, d, s in inputs]
    return oip.ModelInferRequest(
        **{"model_name": "model", "inputs": tensors, "raw_input_contents": raw or [], **fields}
    )


def ids(*rows: list[int]) -> oip.ModelInferRequest:
    array = np.array(rows, dtype=np.int64)
    return request(("input_ids", "INT64", array.shape), raw=[array.tobytes()])


def good(stub) -> None:
    answer = stub.ModelInfer(ids([5, 6, 7]), timeout=30)
    assert list(answer.outputs[0].shape) == [1, 3, 64], "the next request was not answered"


MIXED = request(("input_ids", "INT64", [1, 1]), raw=[bytes(8)])
MIXED.inputs[0].contents.int64_contents.append(5)
TYPED_HALF = request(("input_ids", "FP16", [1, 1]))
TYPED_HALF.inputs[0].contents.fp32_contents.append(1.0)

WRONG = {
    "unknown output": (
        request(
            ("input_ids", "INT64", [1, 1]), raw=[struct.pack("<q", 5)],
            outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name="logits")],
        ),
        "logits",
    ),
    "unknown input": (request(("ids", "INT64", [1, 1]), raw=[bytes(8)]), "ids"),
    "wrong datatype": (request(("input_ids", "INT32", [1, 1]), raw=[bytes(4)]), "INT64"),
    "no such datatype": (request(("input_ids", "INT65", [1, 1]), raw=[bytes(8)]), "INT65"),
    "too few bytes": (request(("input_ids", "INT64", [1, 4]), raw=[bytes(24)]), "24"),
    "absurd shape": (request(("input_ids", "INT64", [1 << 40, 1 << 20]), raw=[bytes(8)]), "shape"),
    "negative shape": (request(("input_ids", "INT64", [1, -1]), raw=[bytes(8)]), "-1"),
    "empty batch": (request(("input_ids", "INT64", [0, 4]), raw=[b""]), "input_ids"),
    "raw and typed": (MIXED, "input_ids"),
    "typed half": (TYPED_HALF, "FP16"),
    "fewer raw than inputs": (
        request(
            ("input_ids", "INT64", [1, 1]), ("attention_mask", "INT64", [1, 1]), raw=[bytes(8)]
        ),
        "raw",
    ),
    "no input": (request(), "input"),
    "only an optional input": (
        request(("attention_mask", "INT64", [1, 1]), raw=[struct.pack("<q", 1)]), "input_ids",
    ),
    "token past the vocabulary": (ids([5, VOCABULARY]), str(VOCABULARY)),
    "negative token": (ids([-1]), "-1"),
    "a segment that the model does not have": (
        request(
            ("input_ids", "INT64", [1, 1]), ("token_type_ids", "INT64", [1, 1]),
            raw=[struct.pack("<q", 5), struct.pack("<q", 9)],
        ),
        "token_type_ids has 9",
    ),
    "too long": (ids([5] * 600), "600"),
    "text without a tokenizer": (
        request(("text_input", "BYTES", [1]), raw=[b"\1\0\0\0a"]), "tokenizer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_is_told_why_and_the_next_is_answered(stub, what):
    wrong, word = WRONG[what]
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(wrong, timeout=30)
    assert refused.value.code() is INVALID, refused.value
    sentence = refused.value.details()
    assert word in sentence, sentence
    assert "Traceback" not in sentence, sentence
    good(stub)


@pytest.mark.parametrize("fields", [{"model_name": "other"}, {"model_version": "2"}])
def test_what_is_not_served_is_not_found(stub, fields):
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request(("input_ids", "INT64", [1, 1]), raw=[bytes(8)], **fields))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert next(iter(fields.values())) in refused.value.details()
    good(stub)


def test_those_who_share_a_microbatch_with_wrong_requests_are_unharmed(stub):
    wrong = [WRONG[what][0] for what in ("token past the vocabulary", "too long", "raw and typed")]
    with ThreadPoolExecutor(12) as pool:
        bad = [pool.submit(stub.ModelInfer, request, timeout=30) for request in wrong]
        fine = [pool.submit(good, stub) for _ in range(6)]
        for answered in fine:
            answered.result(30)
        for refused in bad:
            assert refused.exception(30).code() is INVALID


def test_a_message_larger_than_the_router_takes_is_refused(stub):
    huge = request(("input_ids", "INT64", [1, 1]), raw=[bytes(MAX_REQUEST_BYTES + 1)])
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(huge, timeout=60)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    good(stub)


def text(data: bytes, **parameters) -> oip.ModelInferRequest:
    made = request(("text_input", "BYTES", [1]), raw=[struct.pack("<I", len(data)) + data])
    for name, value in parameters.items():
        field = {float: "double_param", int: "int64_param", str: "string_param", bool: "bool_param"}
        setattr(made.parameters[name], field[type(value)], value)
    return made


WRONG_TEXT = {
    "no UTF-8": (text(b"\xff\xfe"), "UTF-8"),
    "no text": (text(b""), "text_input"),
    "too long": (text(b"a" * 300), "300"),
    "temperature that is no number": (text(b"a", temperature=float("nan")), "temperature"),
    "infinite temperature": (text(b"a", temperature=float("inf")), "temperature"),
    "negative temperature": (text(b"a", temperature=-1.0), "temperature"),
    "top_p of zero": (text(b"a", top_p=0.0), "top_p"),
    "no tokens wanted": (text(b"a", max_tokens=0), "max_tokens"),
    "a number as text": (text(b"a", max_tokens="many"), "max_tokens"),
    "unknown parameter": (text(b"a", temprature=1.0), "temperature"),
    "options that are no JSON": (text(b"a", sampling_parameters="{"), "sampling_parameters"),
}


@pytest.mark.parametrize("what", WRONG_TEXT)
def test_a_wrong_prompt_is_told_why_and_the_next_is_answered(writer, what):
    wrong, word = WRONG_TEXT[what]
    with pytest.raises(grpc.RpcError) as refused:
        writer.ModelInfer(wrong, timeout=30)
    assert refused.value.code() is INVALID, refused.value
    assert word in refused.value.details(), refused.value.details()
    answer = writer.ModelInfer(text(b"a", max_tokens=2), timeout=30)
    assert answer.outputs[0].name == "text_output"


def test_what_the_service_does_not_have_is_unimplemented(bert):
    with grpc.insecure_channel(bert.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/SystemSharedMemoryStatus")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
