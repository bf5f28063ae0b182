"""Which work enters when: chunks, groups, slots, turns, bounds."""

import pytest

from stageline_worker.leader.work import Generation, Inference, QueueFull
from stageline_worker.microbatch import Sampling
from support.scheduling import MAX_LEN, STOP, back, decoding, draws, prompt, scheduler, shape


def test_a_prompt_enters_in_chunks_and_then_token_by_token():
    ring = scheduler(groups=3)
    ring.add(prompt(1, size=7))
    first, second, third = ring.next(), ring.next(), ring.next()
    assert [shape(step) for step in (first, second, third)] == [
        [(1, 0, 3)],
        [(1, 3, 3)],
        [(1, 6, 1)],
    ]
    assert [draws(step) for step in (first, second, third)] == [0, 0, 1]
    assert third.segments[0].sampling.position == 7
    assert ring.next() is None, "a token was asked for before the one before it was known"
    assert back(ring, first) == back(ring, second) == []
    (event,) = back(ring, third, 5)
    assert (event.key, event.token, event.finish) == (1, 5, None)
    step = ring.next()
    assert (shape(step), list(step.tokens)) == ([(1, 7, 1)], [5])
    assert step.segments[0].sampling.position == 8


def test_prompts_share_a_microbatch_and_take_slots_side_by_side():
    ring = scheduler(slots=4, chunk=10)
    for key in (1, 2, 3):
        ring.add(prompt(key, size=4))
    step = ring.next()
    assert shape(step) == [(1, 0, 4), (2, 0, 4), (3, 0, 2)]
    assert [segment.slot for segment in step.segments] == [0, 1, 2]
    assert list(step.tokens) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert [event.key for event in back(ring, step)] == [1, 2]


def test_what_decodes_is_shared_out_to_as_many_groups_as_there_are_stages():
    ring = scheduler(slots=9, chunk=99)
    decoding(ring, range(9))
    first, second = ring.next(), ring.next()
    assert [len(first.keys), len(second.keys)] == [5, 4]
    assert ring.next() is None, "a third group would have made all of them smaller"
    assert [s.slot for s in first.segments] == [0, 1, 2, 3, 4]
    back(ring, first)
    again = ring.next()
    assert again.keys == first.keys, "a group enters again the moment it is back"


def test_groups_of_which_some_ended_grow_together_again():
    ring = scheduler(slots=12, chunk=99)
    decoding(ring, range(12))
    first, second = ring.next(), ring.next()
    for key in first.keys[:5]:
        ring.cancel(key)
    back(ring, first)
    assert len(ring.next().keys) == 1, "the rest of a group waits for nobody"
    back(ring, second)
    assert len(ring.next().keys) == 4, "seven of them: four and, with what is left over, three"


def test_the_lowest_free_slot_is_given_and_those_that_decode_lie_in_its_order():
    ring = scheduler(slots=4, groups=1, chunk=99)
    decoding(ring, [1, 2, 3])
    ring.cancel(2)
    ring.add(prompt(4))
    back(ring, ring.next())
    step = ring.next()
    assert step.keys == (1, 4, 3)
    assert [segment.slot for segment in step.segments] == [0, 1, 2]


def test_few_sequences_make_no_more_groups_than_they_are():
    ring = scheduler(slots=9, groups=4)
    decoding(ring, [1, 2])
    assert [len(ring.next().keys) for _ in range(2)] == [1, 1]
    assert ring.next() is None


def test_decoding_tokens_go_before_prompts_in_one_microbatch():
    ring = scheduler(slots=9, groups=1, chunk=5)
    decoding(ring, [1, 2])
    ring.add(prompt(3, size=8))
    assert shape(ring.next()) == [(1, 2, 1), (2, 2, 1), (3, 0, 5)]


def test_a_model_that_does_not_pack_gets_one_sequence_in_a_microbatch():
    ring = scheduler(slots=4, groups=3, packs=False)
    ring.add(prompt(1, size=2))
    ring.add(prompt(2, size=7))
    seen = []
    for _ in range(8):
        step = ring.next()
        seen += shape(step)
        back(ring, step)
        assert len(step.keys) == 1
    assert seen[:5] == [(1, 0, 2), (1, 2, 1), (2, 0, 3), (1, 3, 1), (2, 3, 3)]


def test_a_stop_token_is_delivered_with_its_reason_and_frees_the_slot():
    ring = scheduler(slots=1, groups=1, chunk=9)
    ring.add(prompt(1))
    ring.add(prompt(2))
    (event,) = back(ring, ring.next(), STOP)
    assert (event.token, event.finish) == (STOP, "stop")
    assert ring.next().keys == (2,)


@pytest.mark.parametrize(
    ("size", "max_tokens", "output", "expected"),
    [(3, 2, 0, 2), (3, 99, 0, MAX_LEN - 3), (MAX_LEN - 1, 99, 0, 1), (5, 4, 2, 2)],
)
def test_max_tokens_and_the_models_length_end_a_generation(size, max_tokens, output, expected):
    ring = scheduler(chunk=99)
    ring.add(prompt(1, size=size, max_tokens=max_tokens, output=output))
    finishes = []
    while (step := ring.next()) is not None:
        finishes += [event.finish for event in back(ring, step)]
    assert finishes == [None] * (expected - 1) + ["length"]


def test_a_generation_may_not_stop_before_its_least_tokens():
    ring = scheduler(groups=1, chunk=99)
    ring.add(prompt(1, size=3, max_tokens=9, min_tokens=2, stop=(STOP, 4)))
    ring.add(prompt(2, size=3, max_tokens=9, min_tokens=2, output=1))
    banned = {1: [], 2: []}
    for _ in range(3):
        step = ring.next()
        for key, segment in zip(step.keys, step.segments, strict=True):
            banned[key].append(segment.sampling.banned)
        back(ring, step)
    assert banned[1][:3] == [(4, STOP), (4, STOP), ()]
    assert banned[2][:2] == [(STOP,), ()], "what was made elsewhere counts"


def test_only_a_sequence_with_penalties_has_its_tokens_counted():
    ring = scheduler(chunk=99)
    counted = Sampling(seed=1, position=0, presence_penalty=0.5)
    ring.add(Generation(1, [1, 2, 3], 5, counted, frozenset(), output=1))
    ring.add(prompt(2))
    assert [segment.prompt for segment in ring.next().segments] == [2, None]


def test_inference_and_generation_take_turns():
    ring = scheduler(slots=4, chunk=4)
    for key in range(4):
        ring.add(prompt(key, stop=()))
        ring.add(Inference(10 + key))
    sorts = []
    for _ in range(8):
        step = ring.next()
        sorts.append(step.inference is not None)
        back(ring, step)
    assert sorts == [False, True] * 4


def test_the_urgent_go_first_and_by_age_goes_every_fourth():
    ring = scheduler(slots=1, groups=1, chunk=99)
    order = []
    for key in range(4):
        ring.add(prompt(key, max_tokens=1, priority=5))
    for key in range(10, 20):
        ring.add(prompt(key, max_tokens=1, priority=-1))
    while (step := ring.next()) is not None:
        order += step.keys
        back(ring, step)
    assert order == [10, 11, 12, 0, 13, 14, 15, 1, 16, 17, 18, 2, 19, 3]


def test_one_more_urgent_takes_the_slot_of_the_least_urgent_which_goes_on_later():
    ring = scheduler(slots=2, groups=1, chunk=99)
    decoding(ring, [1, 2], priority=3)
    ring.add(prompt(3, max_tokens=1, priority=2))
    step = ring.next()
    assert shape(step) == [(1, 2, 1), (3, 0, 4)], "the youngest of the least urgent gives way"
    assert (ring.waiting, ring.generating) == (1, 2)
    back(ring, step)
    assert shape(ring.next()) == [(1, 3, 1), (2, 0, 3)], "all it has is computed again"


def test_when_the_cache_is_full_the_youngest_waits_and_none_fails():
    ring = scheduler(slots=3, groups=1, chunk=99, kv_tokens=60)
    for key in (1, 2, 3):
        ring.add(prompt(key, size=2, max_tokens=20, stop=()))
    ends = {}
    waited = False
    while (step := ring.next()) is not None:
        waited = waited or ring.waiting > 0
        for event in back(ring, step):
            ends[event.key] = ends.get(event.key, 0) + 1
    assert ends == {1: 20, 2: 20, 3: 20}
    assert waited, "60 tokens were enough for three of 22"


def test_too_much_waiting_work_is_refused():
    ring = scheduler(slots=1, groups=1, max_waiting=2)
    for key in (1, 2):
        ring.add(prompt(key))
    with pytest.raises(QueueFull):
        ring.add(Inference(3))
    assert ring.next().keys == (1,)
    ring.add(Inference(3))
