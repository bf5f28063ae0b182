"""Leaders that die, drain or give work back in the middle of texts: nobody can tell."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import numpy as np
import tritonclient.grpc as triton

from support.clients import outcome, triton_input
from support.front import router, router_document
from support.lettered import lettered
from support.pipeline import process_pipeline
from support.streams import Stream

LONG = {"max_tokens": 120, "ignore_eos": True}
REQUESTS = {
    "greedy": LONG,
    "other": LONG,
    "seeded": {**LONG, "temperature": 1.0, "seed": 3},
    "choosy": {**LONG, "temperature": 0.9, "seed": 4, "top_k": 40, "top_p": 0.9},
    "varied": {**LONG, "temperature": 0.8, "seed": 5, "presence_penalty": 1.0,
               "repetition_penalty": 1.2},
    "short": {"max_tokens": 3},
}  # fmt: skip


@contextmanager
def pipelines(count: int):
    """So many pipelines as processes, and a router in front of them."""
    with ExitStack() as stack:
        made = [stack.enter_context(process_pipeline(lettered(), [6])) for _ in range(count)]
        for pipeline in made:
            pipeline.wait_ready()
        document = router_document(lettered(), [pipeline.leader for pipeline in made])
        yield stack.enter_context(router(document)), made


def texts(address: str, during=lambda stream: None) -> dict[str, str]:
    """The texts of all requests on one stream; `during` happens while they are made."""
    with closing(Stream(address)) as stream:
        for name, options in REQUESTS.items():
            stream.ask(f"What is {name}?", name, parameters=options)
        during(stream)
        return stream.texts(len(REQUESTS))


def test_leaders_killed_under_streams_change_no_text():
    with pipelines(2) as (front, (first, second)):
        undisturbed = texts(front.address)
        assert all(len(text) > 50 for name, text in undisturbed.items() if name != "short")

        def kill(stream: Stream) -> None:
            for pipeline in (first, second):
                pipeline.wait_until(lambda r: r.sequences > 0, "streams on this pipeline")
            first.kill(0)

        assert texts(front.address, kill) == undisturbed, "the death of a leader showed"


def test_without_another_pipeline_a_text_waits_for_its_own():
    with pipelines(1) as (front, (only,)):
        undisturbed = texts(front.address)

        def replace(stream: Stream) -> None:
            only.wait_until(lambda r: r.sequences > 0, "streams on the pipeline")
            only.kill(0)
            only.restart(0)

        assert texts(front.address, replace) == undisturbed


def test_texts_that_a_draining_leader_gives_back_go_on():
    with pipelines(2) as (front, (first, _)):
        undisturbed = texts(front.address)

        def drain(stream: Stream) -> None:
            first.wait_until(lambda r: r.sequences > 0, "streams on the first pipeline")
            first.kill(0, signal.SIGTERM)

        assert texts(front.address, drain) == undisturbed


def test_tensors_are_asked_for_again():
    ids = np.arange(3, 60, dtype=np.int64).reshape(1, -1)
    with (
        pipelines(1) as (front, (only,)),
        ThreadPoolExecutor(1) as pool,
        triton.InferenceServerClient(front.address) as client,
    ):
        only.kill(0, signal.SIGSTOP)  # it takes the request, and never answers
        asked = pool.submit(outcome, client, triton_input("input_ids", ids))
        only.kill(0)
        only.restart(0)
        answer = asked.result(60)
    assert not isinstance(answer, Exception), answer
