"""The scheduler's promises, for any order of work, results, failures, cancels, lost sessions."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stageline_worker.leader.work import Inference, QueueFull
from support.scheduling import MAX_LEN, STOP, UNPACED, prompt, scheduler


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
