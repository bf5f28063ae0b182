"""Tensors of the command line, against numpy and against numbers computed by hand."""

import io
import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_cli.failure import Failure
from stageline_cli.tensors import Tensor, from_file, from_json, from_texts

NUMPY = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1",
    "INT16": "i2", "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip


@pytest.mark.parametrize("datatype", NUMPY)
def test_json_becomes_the_bytes_that_numpy_writes(datatype):
    value = [[[True, False], [True, True]]] if datatype == "BOOL" else [[[0, 1], [2, 100]]]
    tensor = from_json("x", value, datatype)
    assert tensor.shape == (1, 2, 2)
    assert tensor.raw == np.array(value, NUMPY[datatype]).tobytes()
    assert tensor.values() == np.array(value, NUMPY[datatype]).ravel().tolist()
    assert tensor.values(1, 2) == tensor.values()[1:3]


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (-2.5, 0xC020),
        (1.00390625, 0x3F80),  # half-way between two: to the even one
        (1.01171875, 0x3F82),
        (3.4e38, 0x7F80),
        (math.inf, 0x7F80),
        (math.nan, 0x7FC0),
    ],
)
def test_bfloat16_rounds_to_nearest_even(value, bits):
    assert struct.unpack("<H", from_json("x", [value], "BF16").raw) == (bits,)


def test_bfloat16_is_read_back():
    assert from_json("x", [1.0, -2.5, 0.0], "BF16").values() == [1.0, -2.5, 0.0]


@given(st.lists(st.text()))
def test_texts_survive(texts):
    tensor = from_texts("t", texts, (len(texts),)).check()
    assert tensor.values() == texts


@pytest.mark.parametrize(
    ("value", "datatype"),
    [([1, 2], "INT64"), ([1, 2.5], "FP32"), (["a"], "BYTES"), ([True], "BOOL"), ([], "INT64")],
)
def test_datatype_is_guessed_where_the_server_tells_none(value, datatype):
    assert from_json("x", value, None).datatype == datatype


@pytest.mark.parametrize(
    ("value", "datatype", "sentence"),
    [
        ([[1, 2], [3]], "INT64", "x is ragged"),
        ([1, [2]], "INT64", "x is ragged"),
        ([1.5], "INT64", "x is INT64 and its values are not"),
        ([300], "UINT8", "x is UINT8 and its values are not"),
        (["a"], "FP32", "x is FP32 and its values are not"),
        ([None], "FP32", "x is FP32 and its values are not"),
        ([{"a": 1}], "BOOL_", "x has the datatype BOOL_, which is unknown here"),
        ([1], "BYTES", "x is BYTES: write its elements as JSON strings"),
        ([1e60], "FP32", "x is FP32 and its values are not"),
        ([1e60], "BF16", "x is BF16 and its values are not"),
    ],
)
def test_wrong_values_are_a_sentence(value, datatype, sentence):
    with pytest.raises(Failure, match=sentence):
        from_json("x", value, datatype)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", (2, 2), bytes(15)),
        ("BYTES", (1,), b"\xff\xff\xff\xff"),
        ("BYTES", (2,), b"\x01\x00\x00\x00a"),
        ("NEW", (1,), b"a"),
        ("FP32", (-1, -1), bytes(4)),
        ("FP32", (2**40, 2**40), b"abcd"),
    ],
)
def test_lying_answers_are_a_sentence(datatype, shape, raw):
    with pytest.raises(Failure, match="x "):
        Tensor("x", datatype, shape, raw).check()


@pytest.mark.parametrize("dtype", ["f4", "i8", "?", "f2", "u1"])
def test_npy_files_are_read(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    tensor = from_file("x", tmp_path / "a.npy", None)
    assert (tensor.shape, tensor.raw) == ((2, 3), array.tobytes())
    assert NUMPY[tensor.datatype] == dtype


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (npy(np.zeros(2, ">f4")), "holds >f4: save it as a little-endian"),
        (npy(np.asfortranarray(np.zeros((2, 3)))), "in Fortran order"),
        (npy(np.array(["a"])), "holds <U1"),
        (npy(np.zeros(4))[:-1], "came with 31 bytes"),
        (npy(np.zeros(4))[:40], "is damaged"),
        (b"\x93NUMPY", "is damaged"),
        (b"\x00\xff", "neither a .npy file nor JSON"),
        (b"[1,", "neither a .npy file nor JSON"),
    ],
)
def test_damaged_files_are_a_sentence(tmp_path, data, sentence):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(Failure, match=sentence):
        from_file("x", tmp_path / "a", None)


def test_json_files_are_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([[1, 2]]))
    assert from_file("x", tmp_path / "a.json", "INT32").shape == (1, 2)


def test_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(Failure, match=r"cannot read .* for x: No such file"):
        from_file("x", tmp_path / "none.npy", None)
