"""What the scheduler does when work is cancelled, a session is lost or a microbatch fails."""

from stageline_worker.leader.work import Inference
from support.scheduling import back, decoding, prompt, scheduler, shape


def test_what_is_cancelled_is_free_at_once():
    ring = scheduler(slots=1, groups=1, chunk=99)
    ring.add(prompt(1))
    ring.add(prompt(2))
    first = ring.next()
    ring.cancel(1)
    ring.cancel(2)
    assert (ring.waiting, ring.generating, ring.running) == (0, 0, 1)
    ring.add(prompt(3))
    assert back(ring, first) == [], "nobody waits for it"
    assert ring.next().keys == (3,)


def test_a_lost_session_is_gone_on_with_in_the_next():
    ring = scheduler(slots=2, groups=2, chunk=99)
    decoding(ring, [1, 2], stop=())
    ring.add(prompt(3))
    ring.add(Inference(9))
    assert 9 in [step.inference for step in (ring.next(), ring.next(), ring.next())]
    assert ring.abort() == []
    assert (ring.waiting, ring.generating, ring.running) == (4, 0, 0)
    steps = [ring.next(), ring.next()]
    steps.sort(key=lambda step: step.inference or 0)
    assert shape(steps[0]) == [(1, 0, 3), (2, 0, 3)], "prompt and output, in order"
    assert list(steps[0].tokens) == [0, 1, 1, 0, 1, 1]
    assert [segment.sampling.position for segment in steps[0].segments] == [3, 3]
    assert steps[1].inference == 9


def test_who_takes_the_ring_down_again_and_again_goes_alone_and_then_ends():
    ring = scheduler(slots=4, groups=2, chunk=99)
    ring.add(prompt(1, stop=()))
    ring.add(prompt(2, stop=()))
    ring.add(Inference(3))
    for _ in range(2):
        assert {*ring.next().keys, ring.next().inference} == {1, 2, 3}
        assert ring.abort() == []
    alone = []
    for _ in range(3):
        step = ring.next()
        assert ring.next() is None, "it is not alone"
        work = step.inference or step.keys[0]
        alone.append(work)
        if work == 2:
            assert ring.abort() == [2]
        else:
            back(ring, step)
    assert alone == [3, 1, 2]
    assert shape(ring.next()) == [(1, 0, 5)], "who was not at fault goes on"


def test_a_ring_that_is_lost_while_work_gets_on_blames_nobody():
    ring = scheduler(slots=1, groups=1, chunk=99)
    ring.add(prompt(1, max_tokens=20, stop=()))
    for _ in range(8):
        back(ring, ring.next())
        assert ring.next() is not None
        assert ring.abort() == []


def test_of_a_microbatch_that_fails_only_the_cause_ends():
    ring = scheduler(slots=4, groups=2, chunk=99)
    ring.add(prompt(1, stop=()))
    ring.add(prompt(2, stop=()))
    assert ring.failed(ring.next().sequence) == [], "either may be the cause"
    first = ring.next()
    assert shape(first) == [(1, 0, 4)]
    assert ring.failed(first.sequence) == [1]
    assert shape(ring.next()) == [(2, 0, 4)]
