"""A prompt becomes text: tokens from a pipeline, characters to the client."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from stageline.v1 import pipeline_pb2 as pb
from stageline_router.errors import Elsewhere, Invalid
from stageline_router.leader import Token
from stageline_router.options import GenerationOptions
from stageline_router.pipelines import Pipelines
from stageline_router.text import Detokenizer, Tokenizer, check_size
from stageline_wire import DATATYPES, TensorView


@dataclass(frozen=True, slots=True)
class Delta:
    """Newly certain text. The last one of a request has a reason: "stop" or "length"."""

    text: str
    finish_reason: str | None
    input_tokens: int
    output_tokens: int  # so far


def encode_prompt(text: str, tokenizer: Tokenizer, info: pb.ModelInfo) -> list[int]:
    """The prompt's token ids. Raises Invalid when it has none, or leaves no room for an answer."""
    check_size("text_input", text, info.max_model_len)
    prompt = tokenizer.encode(text)
    if not prompt:
        raise Invalid("text_input has no token: give some text")
    if info.max_model_len and len(prompt) >= info.max_model_len:
        raise Invalid(
            f"text_input has {len(prompt)} tokens, and prompt and answer together may have "
            f"{info.max_model_len}: shorten it"
        )
    return prompt


async def generate(
    prompt: list[int],
    options: GenerationOptions,
    tokenizer: Tokenizer,
    pipelines: Pipelines,
    seconds: float,
) -> AsyncGenerator[Delta, None]:
    """Deltas as they are made. `seconds` is the time to wait for a ready pipeline.

    Raises Refusal. Closing the iterator early frees the sequence's place in the pipeline.
    """
    detokenizer = Detokenizer(tokenizer, options.stop, prompt)
    count = 0
    async with aclosing(_tokens(_ids(prompt), _sampling(options), pipelines, seconds)) as tokens:
        async for token, reason in tokens:
            count += 1
            # The token that ends a text is a mark, not text.
            text = "" if reason == "stop" else detokenizer.push(token)
            if detokenizer.stopped:
                yield Delta(text, "stop", len(prompt), count)
                return
            if reason:
                text += detokenizer.finish()
                reason = "stop" if detokenizer.stopped else reason
            yield Delta(text, reason, len(prompt), count)


async def _tokens(
    prompt: TensorView, sampling: dict[str, object], pipelines: Pipelines, seconds: float
) -> AsyncGenerator[Token, None]:
    """From the first pipeline that makes any; one that drains gives the prompt back."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    begun = False
    while True:
        leader = await pipelines.pick(until - clock())
        try:
            async with aclosing(leader.generate(prompt, **sampling)) as tokens:
                async for token in tokens:
                    begun = True
                    yield token
            return
        except Elsewhere:
            if begun:
                raise


def _ids(prompt: list[int]) -> TensorView:
    data = np.array(prompt, dtype=np.int64).tobytes()
    return TensorView("input_ids", DATATYPES["INT64"], (len(prompt),), data)


def _sampling(options: GenerationOptions) -> dict[str, object]:
    seed = random.getrandbits(63) if options.seed is None else options.seed
    return {
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_k": max(options.top_k, 0),
        "top_p": options.top_p,
        "seed": seed,
        "stop_token_ids": list(options.stop_token_ids),
        "ignore_eos": options.ignore_eos,
    }
