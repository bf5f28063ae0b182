"""What happens to one request, from protocol message to protocol message.

A request is read and checked whole before it may wait, join a microbatch or enter a pipeline, so
that what is wrong with it is told to its sender alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from stageline.oip import grpc_service_pb2 as oip
from stageline.v1 import pipeline_pb2 as pb
from stageline_router.admission import Admission
from stageline_router.batcher import Batcher
from stageline_router.description import VERSION, inputs
from stageline_router.errors import Invalid
from stageline_router.generation import Delta, encode_prompt, generate
from stageline_router.options import GenerationOptions, read_options
from stageline_router.pipelines import Pipelines
from stageline_router.rows import Rows, TensorRows, TextRows
from stageline_router.tensors import Input, read_inputs, write_strings, write_tensor
from stageline_router.text import Tokenizer, check_size, read_text
from stageline_router.validation import check_model, check_outputs, check_tensors

_P = ParamSpec("_P")
_T = TypeVar("_T")
_LARGE = 32 << 10  # bytes
_TEXT = "text_input"
_EMBEDDING = "embedding"
_TEXT_OUTPUTS = ("text_output", "finish_reason", "num_input_tokens", "num_output_tokens")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that has been read: its inputs, and the model that they are for."""

    request: oip.ModelInferRequest
    inputs: Mapping[str, Input]
    info: pb.ModelInfo
    seconds: float

    @property
    def is_prompt(self) -> bool:
        return _TEXT in self.inputs and self.info.task == pb.GENERATE

    @property
    def outputs(self) -> list[str]:
        return [output.name for output in self.request.outputs]


class FrontDoor:
    """Serves one model; every method that takes a request raises Refusal.

    `seconds` is the time that the client leaves for a pipeline to become ready.
    """

    def __init__(
        self,
        model: str,
        tokenizer: Tokenizer | None,
        pipelines: Pipelines,
        batcher: Batcher,
        admission: Admission,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.pipelines = pipelines
        self._batcher = batcher
        self._admission = admission

    async def infer(self, request: oip.ModelInferRequest, seconds: float) -> oip.ModelInferResponse:
        """The one answer of a request: tensors, embeddings or a whole text."""
        with self._place(request):
            asked = await self._read(request, seconds)
            if not asked.is_prompt:
                return await self._rows(asked)
            options = read_options(request, asked.inputs)
            if options.stream:
                raise Invalid("ModelInfer answers once: ask for a stream with ModelStreamInfer")
            return await self._whole_text(asked, options)

    async def stream(
        self, request: oip.ModelInferRequest, seconds: float
    ) -> AsyncGenerator[oip.ModelInferResponse, None]:
        """The answers of one request of a stream; the last has `triton_final_response` true."""
        with self._place(request):
            asked = await self._read(request, seconds)
            if not asked.is_prompt:
                yield _final(await self._rows(asked), True)
                return
            options = read_options(request, asked.inputs)
            if not options.stream:
                yield _final(await self._whole_text(asked, options), True)
                return
            async with aclosing(self._deltas(asked, options)) as responses:
                async for response in responses:
                    yield response

    def _place(self, request: oip.ModelInferRequest) -> AbstractContextManager[None]:
        check_model(request.model_name, request.model_version, self.model)
        return self._admission.place(request.ByteSize())

    async def _read(self, request: oip.ModelInferRequest, seconds: float) -> _Asked:
        info = await self.pipelines.info(seconds)
        return _Asked(request, await _aside(request, read_inputs, request), info, seconds)

    async def _rows(self, asked: _Asked) -> oip.ModelInferResponse:
        if _TEXT in asked.inputs:
            rows: Rows = await _aside(asked.request, self._text_rows, asked)
        else:
            check_tensors(asked.inputs, asked.info)
            views = tuple(tensor.view() for tensor in asked.inputs.values())
            rows = TensorRows(views, check_outputs(asked.outputs, asked.info))
        response = self._response(asked.request)
        for tensor in await self._batcher.infer(rows, asked.seconds):
            data = bytes(tensor.data)
            write_tensor(response, tensor.name, tensor.datatype.name, tensor.shape, data)
        return response

    def _text_rows(self, asked: _Asked) -> TextRows:
        info, tokenizer = asked.info, self._text_tokenizer(asked.info)
        if others := sorted(set(asked.inputs) - {_TEXT}):
            raise Invalid(f"give text_input or token tensors, not both: drop {', '.join(others)}")
        if set(asked.outputs) - {_EMBEDDING}:
            raise Invalid(
                f"text_input gives the output embedding, not {', '.join(asked.outputs)}: send "
                "input_ids for the model's other outputs"
            )
        texts = [
            _row(row, text, tokenizer, info)
            for row, text in enumerate(read_text(asked.inputs[_TEXT]))
        ]
        optional = tuple(spec.name for spec in info.inputs if spec.optional)
        return TextRows(tuple(texts), info.pad_token_id, optional, (_EMBEDDING,))

    def _text_tokenizer(self, info: pb.ModelInfo) -> Tokenizer:
        names = ", ".join(tensor.name for tensor in inputs(info, has_tokenizer=False))
        if self.tokenizer is None and info.vocab_size:
            raise Invalid(
                f"{self.model} has no tokenizer.json beside its weights, so it takes no text: "
                f"send {names}"
            )
        if self.tokenizer is None or not (info.embeds_text or info.task == pb.GENERATE):
            raise Invalid(f"{self.model} takes no text: send {names}")
        return self.tokenizer

    def _prompt(self, asked: _Asked) -> tuple[str, list[int]]:
        tokenizer = self._text_tokenizer(asked.info)
        for name in asked.outputs:
            if name not in _TEXT_OUTPUTS:
                raise Invalid(
                    f"text generation has no output {name}: it has {', '.join(_TEXT_OUTPUTS)}"
                )
        texts = read_text(asked.inputs[_TEXT])
        if len(texts) != 1:
            raise Invalid(f"text_input has {len(texts)} prompts: send each in a request of its own")
        return texts[0], encode_prompt(texts[0], tokenizer, asked.info)

    async def _whole_text(
        self, asked: _Asked, options: GenerationOptions
    ) -> oip.ModelInferResponse:
        text, prompt = await _aside(asked.request, self._prompt, asked)
        made = [] if options.exclude_input else [text]
        last: Delta | None = None
        async with aclosing(self._generate(prompt, options, asked.seconds)) as deltas:
            async for last in deltas:
                made.append(last.text)
        assert last is not None, "a generation ends with a reason or an error"
        return self._text_response(asked, options, "".join(made), last)

    async def _deltas(
        self, asked: _Asked, options: GenerationOptions
    ) -> AsyncGenerator[oip.ModelInferResponse, None]:
        _, prompt = await _aside(asked.request, self._prompt, asked)
        empty_final = asked.request.parameters["triton_enable_empty_final_response"].bool_param
        async with aclosing(self._generate(prompt, options, asked.seconds)) as deltas:
            async for delta in deltas:
                last = delta.finish_reason is not None
                if delta.text or last:
                    response = self._text_response(asked, options, delta.text, delta)
                    yield _final(response, last and not empty_final)
        if empty_final:
            yield _final(self._response(asked.request), True)

    def _generate(
        self, prompt: list[int], options: GenerationOptions, seconds: float
    ) -> AsyncGenerator[Delta, None]:
        assert self.tokenizer is not None
        return generate(prompt, options, self.tokenizer, self.pipelines, seconds)

    def _text_response(
        self, asked: _Asked, options: GenerationOptions, text: str, delta: Delta
    ) -> oip.ModelInferResponse:
        wanted = asked.outputs or ["text_output"]
        response = self._response(asked.request)
        if "text_output" in wanted:
            write_strings(response, "text_output", [text.encode()])
        if "finish_reason" in wanted or options.return_finish_reason:
            write_strings(response, "finish_reason", [(delta.finish_reason or "").encode()])
        counts = {
            "num_input_tokens": (delta.input_tokens, options.return_num_input_tokens),
            "num_output_tokens": (delta.output_tokens, options.return_num_output_tokens),
        }
        for name, (count, returned) in counts.items():
            if returned or name in wanted:
                write_tensor(response, name, "UINT32", [1], count.to_bytes(4, "little"))
        return response

    def _response(self, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
        return oip.ModelInferResponse(model_name=self.model, model_version=VERSION, id=request.id)


async def _aside(
    request: oip.ModelInferRequest, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    """The work's result; that of a large request in a thread, so that the others go on."""
    if request.ByteSize() < _LARGE:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


def _row(row: int, text: str, tokenizer: Tokenizer, info: pb.ModelInfo) -> tuple[int, ...]:
    check_size(f"text {row} of text_input", text, info.max_model_len)
    tokens = tokenizer.encode(text)
    if not tokens:
        raise Invalid(f"text {row} of text_input has no token: give some text")
    if len(tokens) > info.max_model_len:
        raise Invalid(
            f"text {row} of text_input has {len(tokens)} tokens, the model takes at most "
            f"{info.max_model_len}: shorten it"
        )
    return tuple(tokens)


def _final(response: oip.ModelInferResponse, last: bool) -> oip.ModelInferResponse:
    response.parameters["triton_final_response"].bool_param = last
    return response
