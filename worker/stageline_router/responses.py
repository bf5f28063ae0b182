"""Responses of text generation, made once for a request and then only filled. Pure.

Protobuf reads the parts of a message in any order, one behind the other. So all that the responses
of a stream have in common is serialised once, and what is new is appended: a tenth of the time that
a message of objects takes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache

from stageline.oip import grpc_service_pb2 as oip
from stageline_router.description import VERSION
from stageline_router.generation import Drawn, Generation, News
from stageline_router.options import GenerationOptions
from stageline_router.text import Tokenizer

FINAL = "triton_final_response"
_LENGTH = struct.Struct("<I")
_RAW_CONTENTS = oip.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number
_RESPONSE = oip.ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number
_DELIMITED = 2  # the wire type of bytes and of messages


class TextResponses:
    """Makes the responses of one request."""

    def __init__(
        self,
        model: str,
        request: oip.ModelInferRequest,
        options: GenerationOptions,
        tokenizer: Tokenizer,
    ) -> None:
        self._model = model
        self._id = request.id
        self._options = options
        self._tokenizer = tokenizer
        asked = [output.name for output in request.outputs]
        self._with_text = not asked or "text_output" in asked
        declared = list(self._declared())
        self._going_on = self._head(declared, final=False).SerializeToString()
        self._last = self._head(declared, final=True).SerializeToString()

    def whole(self, generation: Generation, *, repeat: str) -> oip.ModelInferResponse:
        """All texts, finished; each begins with `repeat`."""
        response = self._head(self._declared())
        response.raw_output_contents.extend(self._contents(generation, repeat))
        return response

    def delta(self, generation: Generation, *, final: bool) -> bytes:
        """A serialised ModelStreamInferResponse with what is new."""
        parts = [self._last if final else self._going_on]
        for content in self._contents(generation):
            parts += (_CONTENT_TAG, _varint(len(content)), content)
        return _in_stream(*parts)

    def empty(self) -> bytes:
        """A last response without outputs, serialised."""
        return _in_stream(self._head((), final=True).SerializeToString())

    def _declared(self) -> Iterable[tuple[str, str, int]]:
        options, n = self._options, self._options.n
        if self._with_text:
            yield "text_output", "BYTES", n
        if options.return_finish_reason:
            yield "finish_reason", "BYTES", n
        if options.return_cumulative_logprob:
            yield "cumulative_logprob", "FP32", n
        if options.return_logprobs:
            yield "logprobs", "BYTES", n
        if options.return_num_input_tokens:
            yield "num_input_tokens", "UINT32", 1
        if options.return_num_output_tokens:
            yield "num_output_tokens", "UINT32", n

    def _contents(self, generation: Generation, repeat: str = "") -> list[bytes]:
        """The raw contents of what is declared, in its order."""
        options, texts = self._options, generation.texts
        news = [text.news() for text in texts]
        made = []
        if self._with_text:
            made.append(_strings([repeat + each.text for each in news]))
        if options.return_finish_reason:
            made.append(_strings([str(text.finish) for text in texts]))
        if options.return_cumulative_logprob:
            sums = [text.cumulative for text in texts]
            made.append(struct.pack(f"<{len(sums)}f", *sums))
        if options.return_logprobs:
            made.append(_strings([self._logprobs(each) for each in news]))
        if options.return_num_input_tokens:
            made.append(_LENGTH.pack(len(generation.prompt.tokens)))
        if options.return_num_output_tokens:
            made.append(struct.pack(f"<{len(news)}I", *(each.tokens for each in news)))
        return made

    def _logprobs(self, news: News) -> str:
        most = self._options.logprobs
        return "null" if most is None else json.dumps([self._told(d, most) for d in news.drawn])

    def _told(self, drawn: Drawn, most: int) -> dict[str, dict[str, object]]:
        """The drawn token and the `most` likeliest; a rank that is not among them is not known."""
        ranks = {token: rank for rank, (token, _) in enumerate(drawn.likeliest, 1)}
        logprobs = {drawn.token: drawn.logprob, **dict(drawn.likeliest[:most])}
        return {
            str(token): {
                "logprob": logprob,
                "rank": ranks.get(token),
                "decoded_token": self._tokenizer.name(token, drawn.after),
            }
            for token, logprob in logprobs.items()
        }

    def _head(
        self, declared: Iterable[tuple[str, str, int]], final: bool | None = None
    ) -> oip.ModelInferResponse:
        response = oip.ModelInferResponse(
            model_name=self._model, model_version=VERSION, id=self._id
        )
        for name, datatype, size in declared:
            response.outputs.add(name=name, datatype=datatype, shape=[size])
        if final is not None:
            response.parameters[FINAL].bool_param = final
        return response


def in_stream(response: oip.ModelInferResponse, *, final: bool) -> bytes:
    """A response as a message of a stream, serialised."""
    response.parameters[FINAL].bool_param = final
    return _in_stream(response.SerializeToString())


def error_in_stream(request: oip.ModelInferRequest, message: str) -> bytes:
    """An error as a message of a stream, serialised.

    The id goes along, so that a client with several requests knows which one it was.
    """
    response = oip.ModelInferResponse(model_name=request.model_name, id=request.id)
    response.parameters[FINAL].bool_param = True
    made = oip.ModelStreamInferResponse(error_message=message, infer_response=response)
    data: bytes = made.SerializeToString()
    return data


def _in_stream(*response: bytes) -> bytes:
    """The parts of a response as a message of a stream."""
    return b"".join((_RESPONSE_TAG, _varint(sum(map(len, response))), *response))


def _strings(values: Sequence[str]) -> bytes:
    if len(values) == 1:
        data = values[0].encode()
        return _LENGTH.pack(len(data)) + data
    parts: list[bytes] = []
    for value in values:
        data = value.encode()
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


_CONTENT_TAG = _varint(_RAW_CONTENTS << 3 | _DELIMITED)
_RESPONSE_TAG = _varint(_RESPONSE << 3 | _DELIMITED)
