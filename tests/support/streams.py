"""Streams of generated text, as tritonclient gets them."""

from __future__ import annotations

import queue

import numpy as np
import tritonclient.grpc as triton

from support.clients import text_input, triton_input


def flag(name: str, value: bool = True) -> triton.InferInput:
    return triton_input(name, np.array([value]))


def text_of(result) -> str:
    return result.as_numpy("text_output")[0].decode()


class Stream:
    """A tritonclient stream whose answers are kept by request id."""

    def __init__(self, address: str) -> None:
        self.client = triton.InferenceServerClient(address)
        self.answers: queue.SimpleQueue = queue.SimpleQueue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))

    def ask(self, prompt: str, request_id: str, **options) -> None:
        inputs = [text_input(prompt), flag("stream")]
        self.client.async_stream_infer("model", inputs, request_id=request_id, **options)

    def collect(self, count: int) -> dict[str, list]:
        """Responses by id, until `count` requests have had their last one."""
        found: dict[str, list] = {}
        while count:
            result, error = self.answers.get(timeout=60)
            assert error is None, error
            response = result.get_response()
            found.setdefault(response.id, []).append(result)
            count -= response.parameters["triton_final_response"].bool_param
        return found

    def texts(self, count: int) -> dict[str, str]:
        """The whole text of each of `count` requests."""
        return {
            name: "".join(map(text_of, results)) for name, results in self.collect(count).items()
        }

    def close(self, cancel: bool = False) -> None:
        self.client.stop_stream(cancel_requests=cancel)
        self.client.close()
