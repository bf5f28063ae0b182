"""A pipeline that drains costs no client anything while another is ready, or becomes so."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from stageline_worker.leader.desk import Load
from support.clients import outcome, text_input, triton_input
from support.front import router, router_document
from support.lettered import lettered
from support.pipeline import LocalPipeline, ProcessPipeline, local_pipeline, process_pipeline

IDS = np.array([[5, 6, 7]])
LONG = {"parameters": {"max_tokens": 200, "ignore_eos": True}}


def test_a_leader_that_is_told_to_stop_fails_no_request():
    with ExitStack() as stack:
        first, second = (stack.enter_context(process_pipeline(lettered(), [6])) for _ in range(2))
        for pipeline in (first, second):
            pipeline.wait_ready()
        document = router_document(lettered(), [first.leader, second.leader])
        front = stack.enter_context(router(document))
        with stream_of_requests(front.address) as outcomes:
            wait_for(outcomes, 40)
            both_work(first, second)
            first.kill(0, signal.SIGTERM)
            assert first.join(0, 20) == 0
            wait_for(outcomes, len(outcomes) + 40)
        failed = [each for each in outcomes if isinstance(each, InferenceServerException)]
    assert not failed, f"{len(failed)} of {len(outcomes)} requests failed: {failed[0]}"


def test_what_a_draining_leader_refuses_waits_for_the_next_pipeline():
    with ExitStack() as stack:
        old = stack.enter_context(local_pipeline(lettered(), [6]))
        old.wait_ready()
        front = stack.enter_context(router(router_document(lettered(), [old.leader])))
        pool = stack.enter_context(ThreadPoolExecutor(4))
        client = stack.enter_context(triton.InferenceServerClient(front.address))
        long = pool.submit(outcome, client, text_input("a"), **LONG)
        held(old, lambda load: load.sequences == 1, "the long generation")
        old.workers[0]._leader.desk.drain()  # before any report of it: a request meets a refusal
        text = pool.submit(outcome, client, text_input("b"), parameters={"max_tokens": 2})
        rows = pool.submit(outcome, client, triton_input("input_ids", IDS))
        assert not isinstance(long.result(30), InferenceServerException)
        assert not text.done()
        assert not rows.done()
        new = stack.enter_context(local_pipeline(lettered(), [6]))
        told = router_document(lettered(), [new.leader]).pipelines
        front.run(front.server.update(front.server.document.model_copy(update={"pipelines": told})))
        for request in (text, rows):
            answer = request.result(30)
            assert not isinstance(answer, InferenceServerException), answer


def test_what_a_draining_leader_cannot_finish_goes_on_elsewhere():
    with ExitStack() as stack:
        old = stack.enter_context(local_pipeline(lettered(), [6], max_sequences=1))
        new = stack.enter_context(local_pipeline(lettered(), [6]))
        for pipeline in (old, new):
            pipeline.wait_ready()
        front = stack.enter_context(router(router_document(lettered(), [old.leader])))
        pool = stack.enter_context(ThreadPoolExecutor(4))
        client = stack.enter_context(triton.InferenceServerClient(front.address))
        whole = outcome(client, text_input("a"), **LONG)
        begun = pool.submit(outcome, client, text_input("a"), **LONG)
        held(old, lambda load: load.sequences == 1, "the generation")
        queued = pool.submit(outcome, client, text_input("b"), parameters={"max_tokens": 2})
        held(old, lambda load: load.waiting == 1, "the one that waits for its slot")
        leaders = [old.leader, new.leader]
        told = router_document(lettered(), leaders).pipelines
        front.run(front.server.update(front.server.document.model_copy(update={"pipelines": told})))
        old.workers[0]._leader.coordinator._drain_seconds = 0.0
        old.stop()
        assert not isinstance(queued.result(30), InferenceServerException)
        ended = begun.result(30)
        assert not isinstance(ended, InferenceServerException), ended
        assert ended.as_numpy("text_output") == whole.as_numpy("text_output")


def held(pipeline: LocalPipeline, condition: Callable[[Load], bool], what: str) -> None:
    """Asked of the leader itself: a generation may end between two of its reports."""
    desk = pipeline.workers[0]._leader.desk
    deadline = time.monotonic() + 30
    while not condition(desk.load):
        assert time.monotonic() < deadline, f"{what} did not come in 30 s: {desk.load}"
        time.sleep(0.001)


def both_work(*pipelines: ProcessPipeline) -> None:
    for pipeline in pipelines:
        pipeline.wait_until(lambda r: r.stages[0].microbatches > 5, "work for both pipelines")


def wait_for(outcomes: list[object], count: int) -> None:
    deadline = time.monotonic() + 30
    while len(outcomes) < count:
        assert time.monotonic() < deadline, f"{len(outcomes)} of {count} requests in 30 s"
        time.sleep(0.01)


@contextmanager
def stream_of_requests(address: str, clients: int = 6) -> Iterator[list[object]]:
    """Clients that ask one request after another; the outcome of each so far."""
    outcomes: list[object] = []
    enough = threading.Event()

    def ask() -> None:
        with triton.InferenceServerClient(address) as client:
            for number in itertools.count():
                if enough.is_set():
                    return
                text = (text_input("x"),), {"parameters": {"max_tokens": 3}}
                inputs, options = text if number % 2 else ((triton_input("input_ids", IDS),), {})
                outcomes.append(outcome(client, *inputs, **options))

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask) for _ in range(clients)]
        try:
            yield outcomes
        finally:
            enough.set()
        for each in asking:
            each.result(30)
