"""Short ways to say things to tritonclient, unmodified."""

from __future__ import annotations

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype


def triton_input(name: str, array: np.ndarray) -> triton.InferInput:
    """An input whose bytes are the array's."""
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def text_input(*texts: str) -> triton.InferInput:
    """text_input, BYTES [texts]."""
    return triton_input("text_input", np.array([t.encode() for t in texts], dtype=np.object_))


def infer(client: triton.InferenceServerClient, *inputs: triton.InferInput, **options):
    """The answer to one request to the model named `model`."""
    return client.infer("model", list(inputs), **options)


def outcome(client: triton.InferenceServerClient, *inputs: triton.InferInput, **options):
    """The answer, or the error that came in its place."""
    try:
        return infer(client, *inputs, **options)
    except InferenceServerException as error:
        return error
