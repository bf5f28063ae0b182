"""What happens to one request, from protocol message to protocol message.

A request is read and checked whole before it may wait, join a microbatch or enter a pipeline, so
that what is wrong with it is told to its sender alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from stageline.oip import grpc_service_pb2 as oip
from stageline.v1 import pipeline_pb2 as pb
from stageline_router.admission import Admission
from stageline_router.asking import MESSAGES, TEXT, read_options
from stageline_router.batcher import Batcher
from stageline_router.chat import ChatTemplate, read_messages
from stageline_router.description import VERSION, inputs
from stageline_router.errors import Invalid
from stageline_router.generation import Generation, Prompt, encode_prompt
from stageline_router.options import GenerationOptions
from stageline_router.outgoing import Sender
from stageline_router.pipelines import Pipelines, Wait
from stageline_router.responses import TextResponses, in_stream
from stageline_router.rows import Rows, TensorRows, TextRows
from stageline_router.tensors import Input, read_inputs, write_tensor
from stageline_router.text import Tokenizer, check_size, read_text
from stageline_router.validation import check_model, check_outputs, check_tensors

_P = ParamSpec("_P")
_T = TypeVar("_T")
_LARGE = 32 << 10  # bytes
_EMBEDDING = "embedding"
_EMPTY_FINAL = "triton_enable_empty_final_response"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that has been read: its inputs, and the model that they are for."""

    request: oip.ModelInferRequest
    inputs: Mapping[str, Input]
    info: pb.ModelInfo
    wait: Wait

    @property
    def is_prompt(self) -> bool:
        return self.info.task == pb.GENERATE and (TEXT in self.inputs or MESSAGES in self.inputs)

    @property
    def outputs(self) -> list[str]:
        return [output.name for output in self.request.outputs]


class FrontDoor:
    """Serves one model; every method that takes a request raises Refusal.

    `wait` tells how long the client still leaves for a pipeline to become ready.
    """

    def __init__(
        self,
        model: str,
        tokenizer: Tokenizer | None,
        template: ChatTemplate | None,
        pipelines: Pipelines,
        batcher: Batcher,
        admission: Admission,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.pipelines = pipelines
        self._batcher = batcher
        self._admission = admission

    async def infer(self, request: oip.ModelInferRequest, wait: Wait) -> oip.ModelInferResponse:
        """The one answer of a request: tensors, embeddings or whole texts."""
        with self._place(request):
            asked = await self._read(request, wait)
            if not asked.is_prompt:
                return await self._rows(asked)
            options = read_options(request, asked.inputs)
            if options.stream:
                raise Invalid("ModelInfer answers once: ask for a stream with ModelStreamInfer")
            return await self._whole_texts(asked, options)

    async def stream(self, request: oip.ModelInferRequest, wait: Wait, sender: Sender) -> None:
        """Send the answers of one request; the last has `triton_final_response` true."""
        with self._place(request):
            asked = await self._read(request, wait)
            if not asked.is_prompt:
                sender.send(in_stream(await self._rows(asked), final=True))
                return
            options = read_options(request, asked.inputs)
            if options.stream:
                await self._deltas(asked, options, sender)
            else:
                sender.send(in_stream(await self._whole_texts(asked, options), final=True))

    def _place(self, request: oip.ModelInferRequest) -> AbstractContextManager[None]:
        check_model(request.model_name, request.model_version, self.model)
        return self._admission.place(request.ByteSize())

    async def _read(self, request: oip.ModelInferRequest, wait: Wait) -> _Asked:
        info = await self.pipelines.info(wait())
        return _Asked(request, await _aside(request, read_inputs, request), info, wait)

    async def _rows(self, asked: _Asked) -> oip.ModelInferResponse:
        if TEXT in asked.inputs:
            rows: Rows = await _aside(asked.request, self._text_rows, asked)
        else:
            check_tensors(asked.inputs, asked.info)
            views = tuple(tensor.view() for tensor in asked.inputs.values())
            rows = TensorRows(views, check_outputs(asked.outputs, asked.info))
        response = oip.ModelInferResponse(
            model_name=self.model, model_version=VERSION, id=asked.request.id
        )
        for tensor in await self._batcher.infer(rows, asked.wait):
            data = bytes(tensor.data)
            write_tensor(response, tensor.name, tensor.datatype.name, tensor.shape, data)
        return response

    def _text_rows(self, asked: _Asked) -> TextRows:
        info, tokenizer = asked.info, self._text_tokenizer(asked.info)
        if others := sorted(set(asked.inputs) - {TEXT}):
            raise Invalid(f"give text_input or token tensors, not both: drop {', '.join(others)}")
        if set(asked.outputs) - {_EMBEDDING}:
            raise Invalid(
                f"text_input gives the output embedding, not {', '.join(asked.outputs)}: send "
                "input_ids for the model's other outputs"
            )
        texts = [
            _row(row, text, tokenizer, info)
            for row, text in enumerate(read_text(asked.inputs[TEXT]))
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

    async def _whole_texts(
        self, asked: _Asked, options: GenerationOptions
    ) -> oip.ModelInferResponse:
        prompt, responses = await self._prepare(asked, options)
        generation = self._generation(prompt, options)
        await generation.run(self.pipelines, asked.wait)
        excluded = options.exclude_input_in_output
        repeated = MESSAGES not in asked.inputs if excluded is None else not excluded
        return responses.whole(generation, repeat=prompt.text if repeated else "")

    async def _deltas(self, asked: _Asked, options: GenerationOptions, sender: Sender) -> None:
        prompt, responses = await self._prepare(asked, options)
        empty_final = asked.request.parameters[_EMPTY_FINAL].bool_param

        def tell(generation: Generation) -> None:
            final = generation.done and not empty_final
            sender.send(responses.delta(generation, final=final))

        await self._generation(prompt, options, tell).run(self.pipelines, asked.wait)
        if empty_final:
            sender.send(responses.empty())

    async def _prepare(
        self, asked: _Asked, options: GenerationOptions
    ) -> tuple[Prompt, TextResponses]:
        prompt = await _aside(asked.request, self._prompt, asked)
        tokenizer = self._text_tokenizer(asked.info)
        return prompt, TextResponses(self.model, asked.request, options, tokenizer)

    def _generation(
        self,
        prompt: Prompt,
        options: GenerationOptions,
        tell: Callable[[Generation], None] | None = None,
    ) -> Generation:
        assert self.tokenizer is not None
        return Generation(prompt, options, self.tokenizer, tell)

    def _prompt(self, asked: _Asked) -> Prompt:
        tokenizer, given = self._text_tokenizer(asked.info), asked.inputs
        if MESSAGES not in given:
            texts = read_text(given[TEXT])
            if len(texts) != 1:
                raise Invalid(
                    f"text_input has {len(texts)} prompts: send each in a request of its own"
                )
            return encode_prompt(TEXT, texts[0], tokenizer, asked.info)
        if TEXT in given:
            raise Invalid("give text_input or messages, not both")
        if self.template is None:
            raise Invalid(
                f"{self.model} has no chat template that can be used beside its weights, so it "
                "takes no messages: send text_input"
            )
        text = self.template.render(read_messages(given[MESSAGES]))
        return encode_prompt(MESSAGES, text, tokenizer, asked.info, bare=True)


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
