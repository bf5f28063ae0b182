"""The scheduler's promises, for any order of work, results, failures, cancels, lost sessions."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stageline_worker.leader.scheduler import Generation, Inference, QueueFull, Scheduler
from stageline_worker.microbatch import Sampling

MAX_LEN = 12
STOP = 9


def scheduler(slots=2, chunk=3, in_flight=3, max_waiting=100):
    return Scheduler(
        slots=slots, chunk=chunk, in_flight=in_flight, max_waiting=max_waiting, max_len=MAX_LEN
    )


def prompt(key, size=4, max_tokens=3, stop=(STOP,)):
    return Generation(
        key, list(range(size)), max_tokens, Sampling(seed=key, position=0), frozenset(stop)
    )


def drawn(step):
    """How many tokens the step brings back."""
    return sum(part.segment.sampling is not None for part in step.parts)


def test_a_prompt_enters_in_chunks_and_then_token_by_token():
    ring = scheduler()
    ring.add(prompt(1, size=7))
    segments = []
    first, second, third = ring.next(), ring.next(), ring.next()
    segments += [step.parts[0].segment for step in (first, second, third)]
    assert [(s.start, s.count) for s in segments] == [(0, 3), (3, 3), (6, 1)]
    assert [s.sampling and s.sampling.position for s in segments] == [None, None, 7]
    assert ring.next() is None, "more in flight than allowed"
    assert ring.returned(first.sequence, []) == []
    assert ring.returned(second.sequence, []) == []
    assert ring.next() is None, "a token was asked for before the one before it was known"
    (event,) = ring.returned(third.sequence, [5])
    assert (event.key, event.token, event.finish) == (1, 5, None)
    step = ring.next()
    assert list(step.parts[0].tokens) == [5]
    assert (step.parts[0].segment.start, step.parts[0].segment.sampling.position) == (7, 8)


def test_a_stop_token_is_delivered_with_its_reason_and_frees_the_slot():
    ring = scheduler(slots=1)
    ring.add(prompt(1))
    ring.add(prompt(2))
    ring.returned(ring.next().sequence, [])
    (event,) = ring.returned(ring.next().sequence, [STOP])
    assert (event.token, event.finish) == (STOP, "stop")
    assert ring.next().parts[0].key == 2


def test_max_tokens_and_the_models_length_end_a_generation():
    for size, max_tokens, expected in [(3, 2, 2), (3, 99, MAX_LEN - 3), (MAX_LEN - 1, 99, 1)]:
        ring = scheduler(chunk=99)
        ring.add(prompt(1, size=size, max_tokens=max_tokens))
        finishes = []
        while (step := ring.next()) is not None:
            finishes += [event.finish for event in ring.returned(step.sequence, [1])]
        assert finishes == [None] * (expected - 1) + ["length"]


def test_inference_and_generation_take_turns():
    ring = scheduler(slots=4, chunk=99)
    for key in range(4):
        ring.add(prompt(key))
        ring.add(Inference(10 + key))
    sorts = []
    for _ in range(8):
        step = ring.next()
        sorts.append(step.inference is not None)
        ring.returned(step.sequence, [1] * drawn(step))
    assert sorts == [False, True] * 4


def test_new_prompts_do_not_starve_a_running_generation():
    ring = scheduler(slots=2, chunk=99, in_flight=1)
    ring.add(prompt(0, max_tokens=8, stop=()))
    seen = []
    for key in range(1, 30):
        ring.add(prompt(key, max_tokens=1))
        step = ring.next()
        seen.append(step.parts[0].key)
        ring.returned(step.sequence, [1])
    assert seen[:10].count(0) >= 4, f"generation 0 had to wait: {seen}"


def test_what_had_not_entered_waits_for_the_next_session_in_its_place():
    ring = scheduler(slots=3, chunk=99, in_flight=1)
    for key in (1, 2, 3, 4):
        ring.add(prompt(key))
    ring.add(Inference(9))
    assert ring.next().parts[0].key == 1
    assert ring.abort() == [1], "only what was in the ring ends"
    assert (ring.waiting, ring.generating, ring.running) == (4, 0, 0)
    order = []
    while ring.waiting or ring.generating:
        step = ring.next()
        order.append(step.inference or step.parts[0].key)
        ring.returned(step.sequence, [STOP] * drawn(step))
    assert [key for key in order if key != 9] == [2, 3, 4]


class Work(RuleBasedStateMachine):
    """Any interleaving; the model keeps its own books."""

    @initialize(slots=st.integers(1, 3), in_flight=st.integers(1, 4), chunk=st.integers(1, 4))
    def begin(self, slots, in_flight, chunk):
        self.slots, self.in_flight, self.max_waiting = slots, in_flight, 5
        self.ring = scheduler(slots, chunk, in_flight, self.max_waiting)
        self.sizes: dict[int, int] = {}
        self.owner: dict[int, int] = {}
        self.progress: dict[int, int] = {}
        self.steps = []
        self.open: set[int] = set()
        self.ended: list[int] = []
        self.accepted: set[int] = set()
        self.cancelled: set[int] = set()
        self.key = 0

    def ends(self, key):
        self.ended.append(key)
        self.open.discard(key)

    @rule(size=st.integers(1, MAX_LEN - 1), tokens=st.integers(1, 5), sort=st.booleans())
    def add(self, size, tokens, sort):
        self.key += 1
        full = self.ring.waiting >= self.max_waiting
        try:
            self.ring.add(prompt(self.key, size, tokens) if sort else Inference(self.key))
        except QueueFull:
            assert full, "refused with room to spare"
            return
        assert not full, "accepted more than may wait"
        self.sizes[self.key] = size
        self.accepted.add(self.key)
        self.open.add(self.key)

    @rule()
    def enter(self):
        step = self.ring.next()
        if step is None:
            return
        assert len(self.steps) < self.in_flight, "more in flight than allowed"
        self.steps.append(step)
        for part in step.parts:
            self.check(part)
        if step.inference is not None:
            assert step.inference in self.open, "ended work entered"

    def check(self, part):
        segment = part.segment
        assert part.key in self.open, "ended work entered"
        assert 0 <= segment.slot < self.slots
        if segment.start == 0:
            holder = self.owner.get(segment.slot)
            assert holder not in self.open or holder == part.key, "a slot is shared"
            self.owner[segment.slot] = part.key
            self.progress[part.key] = 0
        assert self.owner[segment.slot] == part.key, "a slot is shared"
        assert segment.start == self.progress[part.key], "tokens are skipped or sent twice"
        self.progress[part.key] += segment.count
        draws = self.progress[part.key] >= self.sizes[part.key]
        assert (segment.sampling is not None) == draws

    @precondition(lambda self: self.steps)
    @rule(token=st.integers(0, STOP))
    def come_back(self, token):
        step = self.steps.pop(0)
        events = self.ring.returned(step.sequence, [token] * drawn(step))
        for event in events:
            assert event.key in self.open, "a token for work that had ended"
            if event.finish:
                self.ends(event.key)
        if step.inference in self.open:
            self.ends(step.inference)

    @precondition(lambda self: self.steps)
    @rule()
    def fail(self):
        step = self.steps.pop(0)
        for key in self.ring.failed(step):
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
        for key in self.ring.abort():
            if key in self.open:
                self.ends(key)
        self.steps.clear()

    @invariant()
    def nothing_ends_twice(self):
        assert len(self.ended) == len(set(self.ended)), "a request ended twice"
        assert not self.cancelled & set(self.ended), "a cancelled request ended"
        assert self.ring.running == len(self.steps)
        assert self.ring.generating <= self.slots

    def teardown(self):
        if not hasattr(self, "ring"):
            return
        for _ in range(2000):
            self.enter()
            if self.steps:
                self.come_back(STOP - 1)
        assert not self.open, f"accepted, but never ended: {self.open}"
        assert set(self.ended) | self.cancelled == self.accepted


Work.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestWork = Work.TestCase
