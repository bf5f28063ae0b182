"""A program: asks a server through the KServe SDK, prints what came as JSON.

The SDK and tritonclient register the same messages under different files and cannot be imported
into one process, so the SDK has one of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


async def main(address: str, model: str) -> None:
    client = InferenceGRPCClient(address)
    ids = np.array([[5, 6, 7], [8, 9, 10]], dtype=np.int64)
    given = InferInput("input_ids", list(ids.shape), "INT64")
    given.set_data_from_numpy(ids)
    answer = await client.infer(InferRequest(model_name=model, infer_inputs=[given]))
    output = answer.get_output_by_name("last_hidden_state")
    said = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready(model),
        "shape": output.shape,
        "values": output.as_numpy().ravel()[:8].tolist(),
    }
    sys.stdout.write(json.dumps(said))


asyncio.run(main(*sys.argv[1:]))
