"""The scheduler's promises, for any order of work, results, failures, cancels, lost sessions."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stageline_worker.leader.pace import Pace
from stageline_worker.leader.scheduler import Limits, Scheduler
from stageline_worker.leader.work import Generation, Inference, QueueFull
from stageline_worker.microbatch import Sampling

MAX_LEN = 24
STOP = 9
UNPACED = math.inf


def scheduler(slots=2, chunk=3, groups=2, stretch=UNPACED, **limits):
    fields = {
        "kv_tokens": slots * MAX_LEN, "max_len": MAX_LEN, "in_flight": groups + 1,
        "max_waiting": 100, **limits,
    }  # fmt: skip
    return Scheduler(Limits(slots=slots, chunk=chunk, groups=groups, **fields), Pace(stretch))


def prompt(key, size=4, max_tokens=3, stop=(STOP,), **fields):
    sampling = Sampling(seed=key, position=0)
    return Generation(key, list(range(size)), max_tokens, sampling, frozenset(stop), **fields)


def draws(step):
    return sum(segment.sampling is not None for segment in step.segments)


def back(ring, step, token=1):
    """The step comes back, every draw with the same token."""
    return ring.returned(step.sequence, [token] * draws(step), 0.01)


def shape(step):
    """What a step holds: key, start and count of each segment."""
    pairs = zip(step.keys, step.segments, strict=True)
    return [(key, segment.start, segment.count) for key, segment in pairs]


def decoding(ring, keys, **fields):
    """So many generations with their prompts behind them, all of them ready."""
    for key in keys:
        ring.add(prompt(key, size=2, max_tokens=20, **fields))
    steps = []
    while (step := ring.next()) is not None:
        steps.append(step)
    for step in steps:
        back(ring, step)


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


def answer(key, position):
    """A sequence's tokens do not depend on what became of sessions."""
    return (7 * key + position) % (STOP + 3)


class Work(RuleBasedStateMachine):
    """Any interleaving; the model keeps its own books."""

    @initialize(
        slots=st.integers(1, 3), groups=st.integers(1, 3), chunk=st.integers(1, 6),
        kv=st.integers(MAX_LEN, 3 * MAX_LEN), packs=st.booleans(),
        stretch=st.sampled_from([1.5, UNPACED]),
    )  # fmt: skip
    def begin(self, slots, groups, chunk, kv, packs, stretch):
        self.slots, self.in_flight, self.kv = slots, groups + 1, kv
        self.ring = scheduler(
            slots, chunk, groups, stretch, max_waiting=6, kv_tokens=kv, packs=packs
        )
        self.packs = packs
        self.text: dict[int, list[int]] = {}  # prompt and output so far
        self.size: dict[int, int] = {}
        self.most: dict[int, int] = {}
        self.caches: dict[int, list[int]] = {}  # what a stage holds, by slot
        self.steps = []
        self.drawn = []
        self.open: set[int] = set()
        self.ended: list[int] = []
        self.accepted: set[int] = set()
        self.cancelled: set[int] = set()
        self.key = 0

    def ends(self, key):
        self.ended.append(key)
        self.open.discard(key)

    @rule(
        size=st.integers(1, MAX_LEN - 1), tokens=st.integers(1, 5), generates=st.booleans(),
        priority=st.integers(0, 2),
    )  # fmt: skip
    def add(self, size, tokens, generates, priority):
        self.key += 1
        full = self.ring.waiting >= 6
        work = prompt(self.key, size, tokens, priority=priority)
        try:
            self.ring.add(work if generates else Inference(self.key))
        except QueueFull:
            assert full, "refused with room to spare"
            return
        assert not full, "accepted more than may wait"
        if generates:
            self.text[self.key] = list(work.tokens)
            self.size[self.key] = size
            self.most[self.key] = min(size + tokens, MAX_LEN)
        self.accepted.add(self.key)
        self.open.add(self.key)

    @rule()
    def enter(self):
        step = self.ring.next()
        if step is None:
            return
        assert len(self.steps) < self.in_flight, "more in flight than allowed"
        assert step.inference is None or step.inference in self.open, "ended work entered"
        assert self.packs or len(step.keys) <= 1
        assert len(set(step.keys)) == len(step.keys)
        tokens = list(step.tokens)
        drawn = []
        for key, segment in zip(step.keys, step.segments, strict=True):
            drawn += self.compute(key, segment, [tokens.pop(0) for _ in range(segment.count)])
        assert not tokens
        self.steps.append(step)
        self.drawn.append(drawn)

    def compute(self, key, segment, tokens):
        """What a stage does with a segment; the token it draws."""
        assert key in self.open, "ended work entered"
        assert 0 <= segment.slot < self.slots
        assert segment.count > 0
        if segment.start == 0:
            self.caches[segment.slot] = []
        cache = self.caches[segment.slot]
        assert len(cache) == segment.start, "tokens are skipped or sent twice"
        cache += tokens
        assert cache == self.text[key][: len(cache)], "a slot is shared, or its tokens are others'"
        whole = len(cache) == len(self.text[key])
        assert (segment.sampling is not None) == whole
        return [answer(key, len(cache))] if whole else []

    @precondition(lambda self: self.steps)
    @rule()
    def come_back(self):
        step, drawn = self.steps.pop(0), self.drawn.pop(0)
        for event in self.ring.returned(step.sequence, drawn, 0.001 * len(step.tokens)):
            key, text = event.key, self.text[event.key]
            assert key in self.open, "a token for work that had ended"
            assert event.token == answer(key, len(text)), "a token is lost or told twice"
            text.append(event.token)
            stops = event.token == STOP
            assert event.finish == ("stop" if stops else "length" if len(text) == self.most[key]
                                    else None)  # fmt: skip
            if event.finish:
                self.ends(key)
        if step.inference in self.open:
            self.ends(step.inference)

    @precondition(lambda self: self.steps)
    @rule()
    def fail(self):
        step, _ = self.steps.pop(0), self.drawn.pop(0)
        ended = self.ring.failed(step.sequence)
        assert len(ended) <= 1, "several ended for one that is at fault"
        for key in ended:
            assert key == step.inference or key in step.keys
            if key in self.open:
                self.ends(key)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data):
        key = data.draw(st.sampled_from(sorted(self.open)))
        self.ring.cancel(key)
        self.cancelled.add(key)
        self.open.discard(key)

    @rule()
    def break_session(self):
        alone = len(self.steps) == 1
        ended = self.ring.abort()
        assert not ended or alone, "work ended with others beside it"
        for key in ended:
            self.ends(key)
        self.steps.clear()
        self.drawn.clear()
        self.caches.clear()

    @invariant()
    def nothing_is_lost_and_nothing_ends_twice(self):
        assert len(self.ended) == len(set(self.ended)), "a request ended twice"
        assert not self.cancelled & set(self.ended), "a cancelled request ended"
        assert self.ring.running == len(self.steps)
        assert self.ring.generating <= self.slots
        running = list(self.ring._floor.runs.values())
        held = sum(len(run.request.tokens) + 1 for run in running)
        assert held <= self.kv or len(running) == 1, "more is held than the cache has room for"
        assert len({run.slot for run in running}) == len(running), "a slot is shared"

    def teardown(self):
        if not hasattr(self, "ring"):
            return
        for _ in range(2000):
            self.enter()
            if self.steps:
                self.come_back()
        assert not self.open, f"accepted, but never ended: {self.open}"
        assert set(self.ended) | self.cancelled == self.accepted


Work.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestWork = Work.TestCase
