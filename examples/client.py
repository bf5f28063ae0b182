"""A client of the Open Inference Protocol as anybody writes one, with an unmodified library."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from serving import Serving, Wrong

ANSWER_SECONDS = 60.0


def array_of(texts: tuple[str, ...]) -> NDArray[np.object_]:
    """Texts as the client sends them: BYTES [texts]."""
    return np.array([text.encode() for text in texts], dtype=np.object_)


def tensor(name: str, values: NDArray[Any]) -> triton.InferInput:
    """One input of a request."""
    datatypes = {"int64": "INT64", "bool": "BOOL", "object": "BYTES"}
    made = triton.InferInput(name, list(values.shape), datatypes[values.dtype.name])
    return made.set_data_from_numpy(values)


def infer(
    client: triton.InferenceServerClient, model: str, output: str, **inputs: NDArray[Any]
) -> NDArray[np.float32]:
    """One request with these inputs, and one output of its answer."""
    tensors = [tensor(name, values) for name, values in inputs.items()]
    try:
        answer = client.infer(model, tensors, client_timeout=ANSWER_SECONDS)
    except triton.InferenceServerException as error:
        raise Wrong(f"{model} did not answer: {error.message()}") from None
    values = answer.as_numpy(output)
    if values is None:
        raise Wrong(f"{model} answered without the output {output}")
    return values


def stream(serving: Serving, prompt: str, max_tokens: int) -> Iterator[str]:
    """What the model writes behind the prompt, greedily, in pieces as they come."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    sampling = json.dumps({"max_tokens": max_tokens, "temperature": 0})
    inputs = [
        tensor("text_input", array_of((prompt,))),
        tensor("stream", np.array([True])),
        tensor("sampling_parameters", array_of((sampling,))),
    ]
    with triton.InferenceServerClient(serving.address) as client:
        client.start_stream(lambda result, error: answers.put(error or result.get_response()))
        client.async_stream_infer(serving.model, inputs, enable_empty_final_response=True)
        while not (answer := next_answer(answers)).parameters["triton_final_response"].bool_param:
            yield triton.InferResult(answer).as_numpy("text_output").item().decode()


def next_answer(answers: queue.SimpleQueue[Any]) -> Any:
    """The next response of a stream."""
    with suppress(queue.Empty):
        answer = answers.get(timeout=ANSWER_SECONDS)
        if not isinstance(answer, triton.InferenceServerException):
            return answer
        raise Wrong(f"tiny-llama broke off its text: {answer.message()}")
    raise Wrong(f"tiny-llama wrote nothing for {ANSWER_SECONDS:.0f} s")
