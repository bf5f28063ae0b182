"""torch tensors to frames and back without copying what is already in memory."""

import pytest
import torch

from stageline_wire import Frame, Kind, decode, encode
from stageline_worker.tensors import from_view, to_view


def test_a_tensor_is_sent_from_its_own_memory_and_received_in_the_messages():
    tensor = torch.arange(6.0)
    view = to_view("x", tensor)
    tensor[0] = 42
    message = b"".join(encode(Frame(Kind.RESULT, tensors=(view,))))
    got = from_view(decode(message).tensors[0])
    assert got[0] == 42, "to_view copied a contiguous tensor"
    assert id(message) < got.data_ptr() < id(message) + len(message) + 64


def test_the_view_keeps_its_tensor_alive():
    view = to_view("x", torch.full((1 << 20,), 7, dtype=torch.uint8))
    noise = [torch.zeros(1 << 20, dtype=torch.uint8) for _ in range(8)]
    assert bytes(view.data[:4]) == b"\7\7\7\7"
    assert len(noise) == 8


def test_what_is_not_contiguous_arrives_in_order():
    tensor = torch.arange(6).reshape(2, 3).t()
    got = from_view(to_view("x", tensor))
    assert got.tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.0),
        torch.tensor(3.0, dtype=torch.bfloat16),
        torch.ones(2, 3, dtype=torch.bfloat16),
        torch.ones(2, 3, requires_grad=True),
        torch.ones(3, 0, 2),
        torch.ones(0, 2, dtype=torch.bfloat16),
        torch.ones(2, 3).t().bool(),
    ],
    ids=["scalar", "bfloat16 scalar", "bfloat16", "grad", "empty", "empty bfloat16", "bool"],
)
def test_a_tensor_comes_back_whatever_numpy_thinks_of_it(tensor):
    got = from_view(to_view("x", tensor))
    assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(got, tensor.detach())
