"""When routers hear of tokens: not while a stage waits for the next microbatch."""

from __future__ import annotations

import pytest
import torch

from stageline_wire import Frame, Kind
from stageline_worker.leader.desk import Desk, Entry
from stageline_worker.leader.outbox import Outbox, Said
from stageline_worker.leader.pace import Pace
from stageline_worker.leader.scheduler import Limits, Scheduler
from stageline_worker.microbatch import Microbatch
from stageline_worker.tensors import to_view
from stageline_worker.timing import Timing
from support.toy import MAX_LEN, ToyStage

SESSION = 1


class Heard(Outbox):
    """Remembers what it was told, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Said | str] = []

    def tokens(self, tokens: list[Said]) -> None:
        self.heard += tokens
        super().tokens(tokens)

    def failure(self, request, code, message, **more) -> None:
        self.heard.append(f"{request} failed")
        super().failure(request, code, message, **more)


class Ring:
    """A desk whose ring the test turns by hand; `texts` decode in as many groups."""

    def __init__(self, texts: int) -> None:
        self.outbox = Heard()
        self.desk = Desk("toy-0", Timing(), lambda: None)
        model = ToyStage(0, 2)
        limits = Limits(
            slots=4, kv_tokens=model.kv_tokens, max_len=MAX_LEN, chunk=64, groups=2, in_flight=3,
            max_waiting=8,
        )  # fmt: skip
        self.desk.serve(model.info, Scheduler(limits, Pace(2.0)))
        self.desk.begin(SESSION, model.canary(), lambda error: None)
        self.back(self.enter(), [])
        self.desk.admit()
        self.inside = [self._ask(number) for number in range(texts)]

    def _ask(self, number: int) -> Entry:
        meta = {"id": number, "max_tokens": 9, "ignore_eos": True}
        ids = to_view("input_ids", torch.tensor([5, 6]))
        self.desk.submit(Frame(Kind.GENERATE, meta=meta, tensors=(ids,)), self.outbox)
        return self.enter()

    def enter(self) -> Entry:
        entry = self.desk.next(SESSION)
        assert entry is not None, "nothing may enter"
        return entry

    def back(self, entry: Entry, tokens: list[int]) -> None:
        self.desk.returned(SESSION, entry.sequence, Microbatch({"tokens": torch.tensor(tokens)}), 0)


def test_tokens_are_told_when_the_next_microbatch_is_on_its_way():
    ring = Ring(texts=2)
    ring.back(ring.inside[0], [7])
    assert ring.outbox.heard == [], "the ring waits, and routers are told first"
    ring.enter()
    assert ring.outbox.heard == [], "it has entered, and is not sent yet"
    ring.desk.next(SESSION)
    assert ring.outbox.heard == [(0, 7, None)]


def test_tokens_are_told_at_once_when_nothing_else_is_in_the_ring():
    ring = Ring(texts=1)
    ring.back(ring.inside[0], [7])
    assert ring.outbox.heard == [(0, 7, None)]


def test_tokens_are_told_when_nothing_may_enter():
    ring = Ring(texts=2)
    ring.desk.cancel([0], ring.outbox)
    ring.back(ring.inside[0], [7])
    ring.desk.cancel([1], ring.outbox)
    ring.back(ring.inside[1], [8])
    assert ring.outbox.heard == [], "nobody waits for these"

    ring = Ring(texts=2)
    ring.back(ring.inside[0], [7])
    ring.desk.cancel([0], ring.outbox)
    assert ring.desk.next(SESSION) is None
    assert ring.outbox.heard == [(0, 7, None)]


@pytest.mark.parametrize("end", ["close", "abandon"])
def test_tokens_are_told_before_whatever_ends_the_texts(end):
    ring = Ring(texts=2)
    ring.back(ring.inside[0], [7])
    getattr(ring.desk, end)("it is over")
    failed = [] if end == "close" else ["0 failed", "1 failed"]
    assert ring.outbox.heard == [(0, 7, None), *failed]


def test_a_router_that_has_left_is_told_nothing():
    ring = Ring(texts=2)
    ring.back(ring.inside[0], [7])
    ring.desk.leave(ring.outbox)
    ring.desk.next(SESSION)
    assert ring.outbox.heard == []
