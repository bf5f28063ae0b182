"""How much a router holds, and what it tells those who must come back."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from stageline_router.admission import Admission
from stageline_router.errors import Exhausted


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_last_place_is_taken_and_given_back():
    admission = Admission(2)
    with ExitStack() as places:
        for _ in range(2):
            places.enter_context(admission.place(1))
        with pytest.raises(Exhausted, match="2 requests are waiting"), admission.place(1):
            pass
    with admission.place(1):
        assert admission.requests == 1


def test_bytes_have_a_limit_that_one_alone_may_pass():
    admission = Admission(9, max_bytes=10 << 20)
    with admission.place(20 << 20), pytest.raises(Exhausted, match="hold 20 MiB"):
        admission.place(1).__enter__()
    assert (admission.requests, admission.bytes) == (0, 0)


@pytest.mark.parametrize(("gap", "told"), [(0.0, 1), (0.05, 5), (0.2, 20), (3600.0, 60)])
def test_the_hint_follows_the_pace_of_the_answers(gap, told):
    clock = Clock()
    admission = Admission(1000, clock=clock)
    for _ in range(100):
        with admission.place(1):
            clock.now += gap
    with ExitStack() as places:
        for _ in range(1000):
            places.enter_context(admission.place(1))
        with pytest.raises(Exhausted, match=f"send it again in {told} s") as refused:
            admission.place(1).__enter__()
    assert refused.value.retry_after == pytest.approx(told, rel=0.01)
