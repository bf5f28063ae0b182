"""The scheduler in simulated time: stages do not wait, nobody starves, prompts hold nobody up."""

import math
import random

import pytest

from stageline_worker.leader.work import Inference
from stageline_worker.timing import Timing
from support.ringsim import HOP, Ring, linear, prompt

# Like a decoder on one core (the ring's bench prints such figures): a microbatch costs as much as
# a dozen tokens, and each token for those that it reads.
CPU = linear(0.004, 0.0003, 1e-7)
GPU = linear(0.02, 0.00005, 1e-9)


def saturated(costs, seed=1, count=300, **limits):
    """Far more requests than slots, all there at once; the ring and when its line was empty."""
    chance = random.Random(seed)
    ring = Ring(costs, **limits)
    for key in range(count):
        ring.at(0.0, prompt(key, chance.randint(5, 200), chance.randint(10, 120)))
    ring.run()
    assert len(ring.tokens) == count, "not all of them were served"
    return ring, max(times[0] for times in ring.tokens.values())


@pytest.mark.parametrize("cost", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_no_stage_waits_while_there_is_work(stages, cost):
    ring, empty = saturated([cost] * stages)
    shares = [stage.busy(0.05 * empty, 0.95 * empty) for stage in ring.stages]
    assert min(shares) >= 0.95, f"of their time the stages computed {shares}"


def test_of_unequal_stages_the_slowest_does_not_wait():
    ring, empty = saturated([CPU, linear(0.008, 0.0006, 2e-7), CPU])
    assert ring.stages[1].busy(0.05 * empty, 0.95 * empty) >= 0.97


def test_inference_alone_keeps_every_stage_busy():
    ring = Ring([linear(0.005, 0.0)] * 3)
    for key in range(200):
        ring.at(0.0, Inference(key))
    ring.run()
    assert min(stage.busy(0.1, ring.now - 0.1) for stage in ring.stages) >= 0.99


def test_a_group_enters_again_when_it_is_back_and_waits_for_no_other():
    ring = Ring([linear(0.005, 0.0)] * 3, slots=7)
    for key in range(7):
        ring.at(0.0, prompt(key, 1, 50))
    ring.run(0.1)
    for times in ring.tokens.values():
        times.clear()
    ring.run(0.4)
    round_trip = 3 * (0.005 + HOP)
    assert max(ring.gaps(list(range(7)))) <= 1.1 * round_trip
    for key in range(5):
        ring.scheduler.cancel(key)
    ring.run()
    assert max(ring.gaps([5, 6])) <= 1.1 * (round_trip + 0.005), "one microbatch was on its way"


def test_one_sequence_is_never_split_over_the_ring_and_costs_nothing_beside_its_way():
    ring = Ring([linear(0.005, 0.0)] * 4)
    ring.at(0.0, prompt(1, 1, 20))
    ring.run()
    assert ring.now == pytest.approx(20 * 4 * (0.005 + HOP))


def test_a_long_prompt_is_spread_over_the_stages_when_nothing_else_is_there():
    whole = linear(0.001, 0.0001)
    alone = Ring([whole] * 4)
    alone.at(0.0, prompt(1, 512, 1))
    alone.run()
    unspread = 4 * (0.001 + 512 * 0.0001 + HOP)
    assert alone.now < 0.6 * unspread, "one stage computed, three waited"


def between_tokens(stages, stretch, prompts):
    """p99 of the seconds between two tokens, while prompts of 1,000 tokens come and while not."""
    keys = list(range(16 * stages - 4))
    ring = Ring([CPU] * stages, stretch=stretch, chunk=512 if stretch < math.inf else 10**6)
    for key in keys:
        ring.at(0.0, prompt(key, 30, 400))
    chance = random.Random(3)
    ring.run(1.0)
    for key in keys:
        ring.tokens[key].clear()
    for key in range(1000, 1000 + prompts):
        ring.at(ring.now + (key - 1000) * chance.uniform(0.5, 0.8), prompt(key, 1000, 5))
    ring.run(7.0)
    gaps = ring.gaps(keys)
    assert all(ring.tokens[key] for key in range(1000, 1000 + prompts)), "a prompt was forgotten"
    return gaps[int(0.99 * len(gaps))]


@pytest.mark.parametrize("stages", [2, 4])
def test_long_prompts_hold_up_those_that_decode_by_twice_their_time_at_most(stages):
    without = between_tokens(stages, Timing().stretch, prompts=0)
    chunked = between_tokens(stages, Timing().stretch, prompts=4)
    whole = between_tokens(stages, math.inf, prompts=4)
    assert chunked <= 2.0 * without, f"{chunked / without:.2f} times"
    assert whole > 4 * without, "whole prompts would have done it too"


@pytest.mark.parametrize("flood", [1, 4])
def test_whoever_waits_is_served_whatever_more_urgent_work_comes(flood):
    ring = Ring([CPU] * 2, slots=4)
    ring.at(0.5, prompt(1, 20, 10, priority=9))
    for key in range(2, 2 + 300 * flood):
        ring.at(0.01 * key / flood, prompt(key, 20, 10, priority=0))
    ring.run()
    older = sum(1 for key, when in ring.arrived.items() if when < 0.5)
    before = sum(1 for times in ring.tokens.values() if times[0] < ring.tokens[1][0])
    assert before <= 4 * (older + 1) + 4, f"{before} were served before one that {older} preceded"


def test_small_requests_do_not_keep_a_large_one_out_of_a_full_cache():
    ring = Ring([CPU] * 2, slots=8, kv_tokens=400)
    ring.at(0.5, prompt(1, 300, 5, priority=9))
    for key in range(2, 400):
        ring.at(0.005 * key, prompt(key, 20, 20))
    ring.run()
    before = sum(1 for times in ring.tokens.values() if times[0] < ring.tokens[1][0])
    assert before < 200, f"{before} of 400 were served before it"


def test_the_urgent_hardly_wait():
    ring = Ring([CPU] * 2, slots=8)
    for key in range(200):
        ring.at(0.0, prompt(key, 20, 60, priority=1))
    for key in range(1000, 1010):
        ring.at(0.3 * (key - 999), prompt(key, 20, 5, priority=0))
    ring.run()
    waits = [ring.tokens[key][0] - ring.arrived[key] for key in range(1000, 1010)]
    assert max(waits) < 0.1, f"they waited {waits} s"
    assert all(len(ring.tokens[key]) == 60 for key in range(200)), "who gave way lost tokens"


def test_a_full_cache_costs_time_and_nobody_a_token():
    ring, _ = saturated([CPU] * 2, count=100, kv_tokens=1500)
    assert max(len(step.keys) for step in ring.steps) < 16, "the cache was never full"
    again = sum(s.start == 0 for step in ring.steps for s in step.segments) - 100
    assert 0 < again < 60, f"{again} times a sequence was computed anew"
