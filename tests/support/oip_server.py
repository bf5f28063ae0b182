"""A small server of the Open Inference Protocol, with any of its calls left out."""

import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from stageline.oip import grpc_service_pb2 as oip
from stageline.oip.grpc_service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

Tensor = oip.ModelMetadataResponse.TensorMetadata
GENERATOR = (
    Tensor(name="text_input", datatype="BYTES", shape=[1]),
    Tensor(name="stream", datatype="BOOL", shape=[1]),
    Tensor(name="sampling_parameters", datatype="BYTES", shape=[1]),
    Tensor(name="exclude_input_in_output", datatype="BOOL", shape=[1]),
)
FOREVER = object()


class Oip(GRPCInferenceServiceServicer):
    """`answer(request)` is the answer of ModelInfer, `pieces` are the texts that are streamed.

    None for `models`, `answer` or `pieces`: the server has no such call. An exception is what the
    server refuses with. FOREVER waits until the client gives up; `given_up`: a stream has ended.
    """

    def __init__(self, models=("m",), inputs=(), answer=None, pieces=None):
        self.models = models
        self.inputs = inputs
        self.answer = answer
        self.pieces = pieces
        self.requests = []
        self.given_up = threading.Event()

    def RepositoryIndex(self, request, context):
        if self.models is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no index here")
        index = [oip.RepositoryIndexResponse.ModelIndex(name=name) for name in self.models]
        return oip.RepositoryIndexResponse(models=index)

    def ModelMetadata(self, request, context):
        if request.name not in (self.models or ("m",)):
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no model {request.name}")
        return oip.ModelMetadataResponse(name=request.name, inputs=self.inputs)

    def ModelInfer(self, request, context):
        self.requests.append(request)
        if self.answer is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no infer here")
        if isinstance(self.answer, Exception):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(self.answer))
        if self.answer is FOREVER:
            wait_for_the_end(context)
        return self.answer(request)

    def ModelStreamInfer(self, requests, context):
        if self.pieces is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no streams here")
        context.add_callback(self.given_up.set)
        for request in requests:
            self.requests.append(request)
            for piece in self.pieces:
                if piece is FOREVER:
                    wait_for_the_end(context)
                elif isinstance(piece, Exception):
                    yield oip.ModelStreamInferResponse(error_message=str(piece))
                else:
                    response = text_response(request, piece) if isinstance(piece, str) else piece
                    yield oip.ModelStreamInferResponse(infer_response=response)


def wait_for_the_end(context):
    """Until the client has given up."""
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait()


def text_response(request, *texts):
    """text_output of these texts, raw."""
    raw = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    output = oip.ModelInferResponse.InferOutputTensor(
        name="text_output", datatype="BYTES", shape=[len(texts)]
    )
    return oip.ModelInferResponse(
        model_name=request.model_name, id=request.id, outputs=[output], raw_output_contents=[raw]
    )


def final_response():
    """The empty last response of a stream."""
    final = oip.InferParameter(bool_param=True)
    return oip.ModelInferResponse(parameters={"triton_final_response": final})


def float_response(name, shape, values, *, raw=True):
    """One FP32 output, raw or typed."""
    output = oip.ModelInferResponse.InferOutputTensor(name=name, datatype="FP32", shape=shape)
    if raw:
        data = struct.pack(f"<{len(values)}f", *values)
        return oip.ModelInferResponse(outputs=[output], raw_output_contents=[data])
    output.contents.fp32_contents.extend(values)
    return oip.ModelInferResponse(outputs=[output])


@contextmanager
def serving(servicer):
    """The address of a running server."""
    server = grpc.server(ThreadPoolExecutor(4))
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
