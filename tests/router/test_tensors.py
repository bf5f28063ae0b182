"""Tensors of the protocol: both forms in, one out, and nothing made of a mere claim."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from stageline.oip import grpc_service_pb2 as oip
from stageline.v1 import pipeline_pb2 as pb
from stageline_router.errors import Invalid, NotFound
from stageline_router.tensors import Input, read_inputs, write_strings, write_tensor
from stageline_router.validation import check_model, check_outputs, check_tensors

DTYPES = {
    "BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1",
    "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
FIELDS = {
    "BOOL": "bool", "INT8": "int", "INT16": "int", "INT32": "int", "INT64": "int64",
    "UINT8": "uint", "UINT16": "uint", "UINT32": "uint", "UINT64": "uint64", "FP32": "fp32",
    "FP64": "fp64",
}  # fmt: skip
SHAPES = array_shapes(max_dims=4, max_side=4, min_side=0)


def one(datatype: str, shape, *, raw: bytes | None = None, **contents) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


@given(st.data(), st.sampled_from(sorted(DTYPES)))
def test_raw_contents_are_the_tensor(data, datatype):
    array = data.draw(arrays(DTYPES[datatype], SHAPES))
    read = read_inputs(one(datatype, array.shape, raw=array.tobytes()))["x"]
    assert (read.shape, bytes(read.data)) == (array.shape, array.tobytes())
    assert read.view().size == array.nbytes


@given(st.data(), st.sampled_from(sorted(FIELDS)))
def test_typed_contents_are_the_same_bytes(data, datatype):
    array = data.draw(arrays(DTYPES[datatype], array_shapes(max_dims=3, max_side=4)))
    values = {f"{FIELDS[datatype]}_contents": array.ravel().tolist()}
    read = read_inputs(one(datatype, array.shape, **values))["x"]
    assert bytes(read.data) == array.tobytes()


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_strings_come_raw_or_typed_and_go_raw(values):
    response = oip.ModelInferResponse()
    write_strings(response, "x", values)
    raw = response.raw_output_contents[0]
    shape = [len(values)]
    assert list(response.outputs[0].shape) == shape
    assert read_inputs(one("BYTES", shape, raw=raw))["x"].elements == tuple(values)
    typed = read_inputs(one("BYTES", shape, bytes_contents=values))["x"]
    assert typed.elements == tuple(values)


def test_outputs_keep_their_order():
    response = oip.ModelInferResponse()
    write_tensor(response, "a", "INT8", [1], b"\1")
    write_tensor(response, "b", "INT8", [2], b"\2\3")
    assert [output.name for output in response.outputs] == ["a", "b"]
    assert list(response.raw_output_contents) == [b"\1", b"\2\3"]


TWICE = one("INT8", [1], raw=b"\1")
TWICE.MergeFrom(one("INT8", [1], raw=b"\1"))
MISSING_RAW = one("INT8", [1], raw=b"\1")
MISSING_RAW.inputs.add(name="y", datatype="INT8", shape=[1])


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (oip.ModelInferRequest(), "the request has no input"),
        (TWICE, "input x is there twice"),
        (MISSING_RAW, "2 inputs and 1 raw_input_contents"),
        (one("INT7", [1], raw=b"\1"), "unknown datatype 'INT7'"),
        (one("INT8", [-1], raw=b"\1"), "no dimension can be negative"),
        (one("INT8", [1] * 9, raw=b"\1"), "9 dimensions: at most 8"),
        (one("INT64", [2, 8], raw=bytes(120)), "that is 128 bytes, and 120 came"),
        (one("INT64", [2**62, 2**62], raw=b""), "came"),
        (one("INT8", [1], raw=b"\1", int_contents=[1]), "contents beside raw_input_contents"),
        (one("FP16", [1], fp32_contents=[1.0]), "FP16, which has no typed contents: send it raw"),
        (one("BF16", [1]), "BF16, which has no typed contents: send it raw"),
        (one("INT64", [1], int_contents=[1]), "has int_contents: use int64_contents"),
        (one("INT8", [1], int_contents=[300]), "a value that INT8 cannot hold"),
        (one("UINT16", [1], uint_contents=[70_000]), "a value that UINT16 cannot hold"),
        (one("INT8", [3], int_contents=[1, 2]), "that is 3 values, and 2 came"),
        (one("INT8", [2**40]), "and 0 came"),
        (one("BYTES", [1], raw=b"\5\0\0"), "ends within the length of element 0"),
        (one("BYTES", [1], raw=b"\5\0\0\0abc"), "says it has 5 bytes, 3 are left"),
        (one("BYTES", [1], raw=b"\xff\xff\xff\xffabc"), "says it has 4294967295 bytes"),
        (one("BYTES", [1], raw=b"\1\0\0\0a\0"), "is 1 elements, and 1 bytes are left after them"),
        (one("BYTES", [0], raw=bytes(8)), "that is 0 elements, and 8 bytes are left after them"),
        (one("BYTES", [2], raw=b"\1\0\0\0a"), "that is 2 elements, and 1 came"),
    ],
)
def test_what_is_wrong_is_a_sentence(request_, sentence):
    with pytest.raises(Invalid) as refused:
        read_inputs(request_)
    assert sentence in str(refused.value)


INFO = pb.ModelInfo(
    vocab_size=10,
    max_model_len=4,
    inputs=[
        pb.TensorSpec(name="input_ids", datatype="INT64", shape=[-1, -1], limit=10),
        pb.TensorSpec(
            name="attention_mask", datatype="INT64", shape=[-1, -1], optional=True, limit=2
        ),
    ],
    outputs=[pb.TensorSpec(name="logits", datatype="FP32", shape=[-1, -1, 10])],
)
IMAGES = pb.ModelInfo(
    inputs=[pb.TensorSpec(name="pixel_values", datatype="FP32", shape=[-1, 3, 2, 2])]
)


def ints(name: str, rows: list) -> Input:
    array = np.array(rows, dtype="<i8")
    return Input(name, "INT64", array.shape, array.tobytes())


def check(*inputs: Input, info: pb.ModelInfo = INFO) -> None:
    check_tensors({given.name: given for given in inputs}, info)


def pixels(*shape: int) -> Input:
    return Input("pixel_values", "FP32", shape, struct.pack("<f", 0) * int(np.prod(shape)))


def test_what_the_model_takes_passes():
    check(ints("input_ids", [[1, 9], [0, 3]]), ints("attention_mask", [[1, 1], [1, 0]]))
    check(pixels(5, 3, 2, 2), info=IMAGES)


@pytest.mark.parametrize(
    ("inputs", "info", "sentence"),
    [
        ([ints("ids", [[1]])], INFO, "no input 'ids': it has input_ids, attention_mask"),
        ([ints("attention_mask", [[1]])], INFO, "input input_ids is missing"),
        ([Input("input_ids", "INT32", (1, 1), bytes(4))], INFO, "is INT32, the model takes INT64"),
        ([ints("input_ids", [1, 2])], INFO, "has shape [2], the model takes [-1, -1]"),
        ([pixels(1, 3, 2, 3)], IMAGES, "has shape [1, 3, 2, 3], the model takes [-1, 3, 2, 2]"),
        ([pixels(0, 3, 2, 2)], IMAGES, "there is nothing in it"),
        ([ints("input_ids", [[1] * 5])], INFO, "has 5 tokens, the model takes at most 4"),
        ([ints("input_ids", [[1, 2], [3, 10]])], INFO, "10 at [1, 1]: it must be 0 to 9"),
        ([ints("input_ids", [[-1]])], INFO, "-1 at [0, 0]"),
        ([ints("input_ids", [[1]]), ints("attention_mask", [[2]])], INFO, "it must be 0 to 1"),
        (
            [ints("input_ids", [[1, 2], [3, 4]]), ints("attention_mask", [[0, 1], [0, 0]])],
            INFO,
            "row 1 of attention_mask is all 0",
        ),
        ([ints("input_ids", [[1]]), ints("attention_mask", [[1], [1]])], INFO, "need the same"),
        ([ints("input_ids", [[1]]), ints("attention_mask", [[1, 1]])], INFO, "token by token"),
    ],
)
def test_what_the_model_cannot_take_is_a_sentence(inputs, info, sentence):
    with pytest.raises(Invalid) as refused:
        check(*inputs, info=info)
    assert sentence in str(refused.value)


def test_outputs_are_held_to_what_there_is():
    assert check_outputs([], INFO) is None
    assert check_outputs(["logits"], INFO) == ("logits",)
    with pytest.raises(Invalid, match="no output 'hidden': it has logits"):
        check_outputs(["hidden"], INFO)
    with pytest.raises(Invalid, match="asked for twice"):
        check_outputs(["logits", "logits"], INFO)


@pytest.mark.parametrize(
    ("name", "version", "sentence"),
    [("lama", "", "model 'lama' is not served here: this server has llama"),
     ("llama", "2", "llama has no version '2'")],
)  # fmt: skip
def test_another_model_is_not_found(name, version, sentence):
    check_model("llama", "", "llama")
    check_model("llama", "1", "llama")
    with pytest.raises(NotFound, match=sentence):
        check_model(name, version, "llama")
