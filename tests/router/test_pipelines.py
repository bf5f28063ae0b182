"""Pipelines that join and leave a router while it serves."""

from __future__ import annotations

import queue
from contextlib import ExitStack

import numpy as np
import tritonclient.grpc as triton

from stageline_api.documents import PipelineAddress
from support.clients import infer, text_input, triton_input
from support.front import router, router_document
from support.lettered import lettered
from support.pipeline import local_pipeline

TOKENS = 200


def test_a_pipeline_that_leaves_finishes_what_it_has():
    with ExitStack() as stack:
        old, new = (
            stack.enter_context(local_pipeline(lettered(), [3, 3], max_sequences=2, pipeline=name))
            for name in ("llama-0", "new")
        )
        for pipeline in (old, new):
            pipeline.wait_ready()
        document = router_document(lettered(), [old.leader])
        front = stack.enter_context(router(document))
        client = stack.enter_context(triton.InferenceServerClient(front.address))
        answers: queue.SimpleQueue = queue.SimpleQueue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        options = {"max_tokens": TOKENS, "ignore_eos": True}
        inputs = [text_input("long"), triton_input("stream", np.array([True]))]
        client.async_stream_infer("model", inputs, parameters=options)
        result, error = answers.get(timeout=30)  # the first piece: it is on its way

        address = PipelineAddress(name="new", leader=new.leader)
        front.run(front.server.update(document.model_copy(update={"pipelines": (address,)})))
        infer(client, text_input("short"), parameters={"max_tokens": 2})
        new.wait_until(
            lambda report: report.stages[0].microbatches > 1, "work for the new pipeline"
        )
        while error is None and not _last(result):
            result, error = answers.get(timeout=30)
        client.stop_stream()
    assert error is None, f"the request on the pipeline that left was given up: {error}"


def _last(result: triton.InferResult) -> bool:
    return result.get_response().parameters["triton_final_response"].bool_param
