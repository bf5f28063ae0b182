"""Which rows share a microbatch: tables, and what holds for every order of requests."""

from hypothesis import given
from hypothesis import strategies as st

from stageline_router.batches import Batch, Batches, Part


def parts(batches: list[Batch]) -> list[list[tuple[int, int, int]]]:
    return [[(p.request, p.first, p.end) for p in batch.parts] for batch in batches]


def test_requests_wait_for_each_other_until_the_delay_is_over():
    batches = Batches(max_rows=8, max_delay=0.1)
    assert batches.add("a", 1, 2, now=0.0) == []
    assert batches.add("a", 2, 3, now=0.05) == []
    assert batches.next_due() == 0.1, "the first of them decides when they go"
    assert batches.expire(0.09) == []
    assert parts(batches.expire(0.1)) == [[(1, 0, 2), (2, 0, 3)]]
    assert batches.next_due() is None


def test_a_full_microbatch_goes_at_once():
    batches = Batches(max_rows=4, max_delay=9.0)
    assert batches.add("a", 1, 3, now=0.0) == []
    assert parts(batches.add("a", 2, 1, now=0.0)) == [[(1, 0, 3), (2, 0, 1)]]


def test_a_large_request_is_split_and_its_rest_meets_the_next_request():
    batches = Batches(max_rows=4, max_delay=9.0)
    assert parts(batches.add("a", 1, 10, now=0.0)) == [[(1, 0, 4)], [(1, 4, 8)]]
    assert parts(batches.add("a", 2, 3, now=0.0)) == [[(1, 8, 10), (2, 0, 2)]]
    assert parts(batches.expire(9.0)) == [[(2, 2, 3)]]


def test_requests_of_other_keys_do_not_meet():
    batches = Batches(max_rows=2, max_delay=0.0)
    assert parts(batches.add("a", 1, 1, now=0.0)) == [[(1, 0, 1)]], "without a delay none waits"
    batches = Batches(max_rows=2, max_delay=1.0)
    assert batches.add("a", 1, 1, now=0.0) == batches.add("b", 2, 1, now=0.0) == []
    assert parts(batches.expire(1.0)) == [[(1, 0, 1)], [(2, 0, 1)]]


def test_rows_that_nobody_waits_for_are_dropped():
    batches = Batches(max_rows=4, max_delay=1.0)
    batches.add("a", 1, 2, now=0.0)
    batches.add("a", 2, 1, now=0.0)
    batches.discard(1)
    assert parts(batches.expire(1.0)) == [[(2, 0, 1)]]
    batches.add("a", 3, 1, now=1.0)
    batches.discard(3)
    assert batches.next_due() is None, "an empty microbatch is due to nobody"


requests = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 20), st.floats(0, 1)), min_size=1, max_size=30
)


@given(requests, st.integers(1, 8), st.sampled_from([0.0, 0.5, 3.0]))
def test_every_row_goes_once_in_order_never_late_and_never_in_a_crowd(asked, max_rows, max_delay):
    batches = Batches(max_rows, max_delay)
    now, sent, added = 0.0, [], {}
    for request, (key, rows, pause) in enumerate(asked):
        now += pause
        sent += [(now, batch) for batch in batches.expire(now)]
        added[request] = (now, key, rows)
        sent += [(now, batch) for batch in batches.add(key, request, rows, now)]
        due = batches.next_due()
        assert due is None or due > now, "what is due was not given out"
    while (due := batches.next_due()) is not None:
        sent += [(due, batch) for batch in batches.expire(due)]
    seen: dict[int, list[Part]] = {}
    for when, batch in sent:
        assert 1 <= batch.rows <= max_rows, f"{batch} has more than {max_rows} rows"
        for part in batch.parts:
            since, key, _ = added[part.request]
            assert key == batch.key, f"request {part.request} is in a microbatch of other rows"
            assert when <= since + max_delay + 1.0, f"{part} waited from {since} until {when}"
            seen.setdefault(part.request, []).append(part)
    for request, (_, _, rows) in added.items():
        got = [row for part in seen[request] for row in range(part.first, part.end)]
        assert got == list(range(rows)), f"request {request} of {rows} rows gave {got}"
