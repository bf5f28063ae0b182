"""The work queue under simulated time: seconds pass as fast as the test needs them to."""

import asyncio
import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_operator.queue import BackOff, Later, Pace, WorkQueue

pytestmark = pytest.mark.looptime


@contextlib.asynccontextmanager
async def running(work, **options):
    queue = WorkQueue(work, **options)
    queue.start()
    try:
        yield queue
    finally:
        await queue.stop()


def now():
    return asyncio.get_running_loop().time()


async def test_a_key_added_often_is_run_once():
    runs = []

    async def work(key):
        runs.append(key)

    async with running(work) as queue:
        for _ in range(100):
            queue.add("a")
        queue.add("b")
        assert queue.depth == 2
        await asyncio.sleep(1)
    assert sorted(runs) == ["a", "b"]


async def test_a_key_is_never_run_by_two_workers_and_is_run_again_when_it_became_dirty():
    running_now, most, runs = 0, 0, 0

    async def work(key):
        nonlocal running_now, most, runs
        running_now += 1
        runs += 1
        most = max(most, running_now)
        await asyncio.sleep(1)
        running_now -= 1

    async with running(work, workers=8) as queue:
        queue.add("a")
        await asyncio.sleep(0.5)
        for _ in range(10):
            queue.add("a")
        await asyncio.sleep(10)
    assert most == 1, "two workers ran one key together"
    assert runs == 2, "what came while it ran asks for exactly one more run"


async def test_keys_are_run_together_as_far_as_there_are_workers():
    async def work(key):
        await asyncio.sleep(1)

    async with running(work, workers=3) as queue:
        for key in range(7):
            queue.add(key)
        await asyncio.sleep(0.5)
        assert (queue.in_flight, queue.depth) == (3, 4)
        assert queue.oldest_waiting() == pytest.approx(0.5)
        assert queue.oldest_running() == pytest.approx(0.5)
        await asyncio.sleep(2)
        assert (queue.in_flight, queue.depth) == (1, 0)


async def test_in_line_what_is_begun_goes_before_what_is_new_for_half_a_minute():
    runs = []

    async def work(key):
        runs.append(key)
        await asyncio.sleep(1)

    async with running(work, workers=1) as queue:
        queue.add("a")
        queue.add("b")
        await asyncio.sleep(1.5)
        queue.add("new")
        for _ in range(60):
            queue.add("a")
            queue.add("b")
            await asyncio.sleep(1)
        assert runs.index("new") == pytest.approx(32, abs=2), "not soon, and not never"
        queue.add("newer")
        await asyncio.sleep(5)
    assert runs[-1] == "newer", "where nothing that is begun waits, it is its turn"


async def test_failures_back_off_and_success_forgets_them():
    times, failing = [], True

    async def work(key):
        times.append(now())
        if failing:
            raise ValueError("no")

    async with running(work, back_off=BackOff(1, 60)) as queue:
        queue.add("a")
        await asyncio.sleep(1000)
        waits = [after - before for before, after in itertools.pairwise(times)]
        for number, wait in enumerate(waits):
            longest = min(60, 2**number)
            assert longest / 2 <= wait <= longest, f"failure {number + 1} waited {wait}"
        failing = False
        await asyncio.sleep(61)
        count = len(times)
        await asyncio.sleep(1000)
        assert len(times) == count, "it was run again though it had succeeded"
        failing = True
        queue.add("a")
        await asyncio.sleep(1.001)
        assert len(times) == count + 2, "the first failure after a success waits the least again"


async def test_one_failing_key_stops_neither_its_worker_nor_the_others():
    done = []

    async def work(key):
        if key == "bad":
            raise RuntimeError("a bug")
        done.append(key)

    async with running(work, workers=1) as queue:
        for key in ("bad", "b", "c"):
            queue.add(key)
        await asyncio.sleep(0.01)
        assert done == ["b", "c"]
        assert queue.alive


async def test_patience_that_was_asked_for_is_kept_though_events_come():
    times = []

    async def work(key):
        times.append(now())
        if len(times) == 1:
            raise Later("busy", after=10)

    async with running(work) as queue:
        queue.add("a")
        for _ in range(30):
            await asyncio.sleep(0.5)
            if len(times) < 2:
                queue.add("a")
    assert [round(time) for time in times] == [0, 10]


async def test_the_first_of_many_events_is_answered_at_once_and_the_others_together():
    times = []

    async def work(key):
        times.append(now())
        await asyncio.sleep(0.1)

    async with running(work, spacing=1.0) as queue:
        for _ in range(20):
            queue.add("a")
            await asyncio.sleep(0.05)
        assert queue.depth == 0, "what waits for its time does not stand in line"
        await asyncio.sleep(10)
        queue.add("a")
        await asyncio.sleep(0.01)
    assert times == [pytest.approx(0), pytest.approx(1.1), pytest.approx(11.0)]


async def test_the_earliest_of_the_times_asked_for_wins():
    times = []

    async def work(key):
        times.append(now())

    async with running(work) as queue:
        queue.add_after("a", 30)
        queue.add_after("a", 5)
        queue.add_after("a", 60)
        await asyncio.sleep(200)
    assert times == [pytest.approx(5)], "one run, at the earliest time"


async def test_what_work_returns_is_when_it_looks_again():
    times = []

    async def work(key):
        times.append(now())
        return 7.0 if len(times) < 3 else None

    async with running(work) as queue:
        queue.add("a")
        await asyncio.sleep(100)
    assert times == [pytest.approx(0), pytest.approx(7), pytest.approx(14)]


async def test_a_forgotten_key_is_not_due_any_more():
    times = []

    async def work(key):
        times.append(now())

    async with running(work) as queue:
        queue.add_after("a", 5)
        queue.forget("a")
        await asyncio.sleep(20)
    assert times == []


async def test_a_worker_that_ended_is_noticed():
    async def work(key):
        raise asyncio.CancelledError

    async with running(work, workers=2) as queue:
        assert queue.alive
        queue.add("a")
        await asyncio.sleep(0.1)
        assert not queue.alive


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_no_wait_is_longer_than_the_longest_nor_shorter_than_half_the_first(failures, luck):
    wait = BackOff().after(failures, luck)
    assert 0.025 <= wait <= 60


@pytest.mark.parametrize(
    ("runs", "spacing"), [(1, 0.05), (5, 0.05), (20, 0.28), (50, 1.0), (500, 1.0)]
)
def test_where_many_keys_move_each_waits_longer_for_more_to_happen(runs, spacing):
    pace = Pace(0.05)
    for number in range(3 * runs):
        found = pace.ran(100 + number / runs)
    assert found == pytest.approx(spacing, rel=0.5)
    assert pace.ran(200.0) == 0.05, "and when all is calm again, none does"
