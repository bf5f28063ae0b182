"""What waits for a router leaves in full frames, and in an order that keeps each request's own."""

import torch

from stageline_wire import Kind
from stageline_worker.leader.outbox import Outbox


def drained(outbox):
    outbox.close()
    return list(outbox.frames())


def test_a_router_that_reads_slowly_gets_all_waiting_tokens_in_one_frame():
    outbox = Outbox()
    for step in range(5):
        outbox.tokens([(1, step, None), ("b", step, None)])
    (frame,) = drained(outbox)
    assert frame.kind is Kind.TOKENS
    assert [token for request, token, _ in frame.meta["tokens"] if request == 1] == [0, 1, 2, 3, 4]


def test_tokens_of_a_request_go_before_its_failure():
    outbox = Outbox()
    outbox.tokens([(1, 5, None)])
    outbox.failure(1, "UNAVAILABLE", "stage 1 is gone")
    outbox.answer(2, {"x": torch.zeros(2)})
    kinds = [frame.kind for frame in drained(outbox)]
    assert kinds == [Kind.TOKENS, Kind.FAILURE, Kind.ANSWER]


def test_what_is_there_goes_out_before_the_end():
    outbox = Outbox()
    outbox.answer(2, {"x": torch.zeros(2)})
    (frame,) = drained(outbox)
    assert frame.meta == {"id": 2}
    assert frame.tensors[0].shape == (2,)
