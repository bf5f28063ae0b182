"""A prompt becomes text: tokens from pipelines, characters to the client.

Each of a request's n texts is a generation of its own for the pipelines. What it has said is kept
here, so that any pipeline can go on with it: prompt and tokens so far are sent again, and because a
draw depends on seed, position and the tokens before it, the text is the one that would have been.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from stageline.v1 import pipeline_pb2 as pb
from stageline_router.detokenizer import Detokenizer
from stageline_router.errors import Invalid
from stageline_router.leader import Leader, Logprobs
from stageline_router.options import GenerationOptions
from stageline_router.pipelines import Pipelines, Wait
from stageline_router.text import Tokenizer, check_size
from stageline_wire import DATATYPES, TensorView

_SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class Prompt:
    """`text` is what a client may have repeated before its answer."""

    text: str
    tokens: list[int]


def encode_prompt(
    name: str, text: str, tokenizer: Tokenizer, info: pb.ModelInfo, *, bare: bool = False
) -> Prompt:
    """Raises Invalid when the text of input `name` has no token, or leaves no room for an answer.

    `bare`: the text spells its special tokens itself.
    """
    check_size(name, text, info.max_model_len)
    tokens = tokenizer.encode(text, bare=bare)
    if not tokens:
        raise Invalid(f"{name} has no token: give some text")
    if info.max_model_len and len(tokens) >= info.max_model_len:
        raise Invalid(
            f"{name} has {len(tokens)} tokens, and prompt and answer together may have "
            f"{info.max_model_len}: shorten it"
        )
    return Prompt(text, tokens)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a leader told of one draw: the token, and the likeliest with it, in order."""

    token: int
    after: int
    """The token before it."""
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


@dataclass(slots=True)
class News:
    """What a text has more since the last look."""

    pieces: list[str] = field(default_factory=list)
    tokens: int = 0
    drawn: list[Drawn] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The pieces as one."""
        return "".join(self.pieces)


class Text:
    """One text in the making. Heard by the leader that has it; `finish` ends it."""

    def __init__(self, generation: Generation, seed: int, detokenizer: Detokenizer) -> None:
        self._generation = generation
        self._detokenizer = detokenizer
        self.seed = seed
        self.tokens: list[int] = []
        self.finish: str | None = None
        self.cumulative = 0.0  # sum of the drawn tokens' logprobs
        self._news = News()

    def news(self) -> News:
        """Everything since the last call."""
        news, self._news = self._news, News()
        return news

    def take(self, token: int, finish: str | None, logprobs: Logprobs | None) -> bool:
        """One more token, the last one with its reason; whether more are wanted."""
        if logprobs is not None:
            self._hear_of(token, logprobs)
        self.tokens.append(token)
        news, detokenizer = self._news, self._detokenizer
        news.tokens += 1
        # The token that ends a text is a mark, not text.
        if finish != "stop" and (piece := detokenizer.push(token)):
            news.pieces.append(piece)
            self._generation.has_news = True
        if finish and (piece := detokenizer.finish()):
            news.pieces.append(piece)
        if detokenizer.stopped:
            finish = "stop"
        if finish is None:
            return True
        self.finish = finish
        self._generation.ended()
        return False

    def flush(self) -> None:
        """All that this step brought has been taken."""
        self._generation.flush()

    def _hear_of(self, token: int, logprobs: Logprobs) -> None:
        logprob, likeliest = logprobs
        after = self.tokens[-1] if self.tokens else self._generation.prompt.tokens[-1]
        best = tuple((int(other), float(its)) for other, its in likeliest)
        self._news.drawn.append(Drawn(token, after, float(logprob), best))
        self.cumulative += logprob


class Generation:
    """All texts of one request. `on_news` is called after each step that a client can hear of."""

    def __init__(
        self,
        prompt: Prompt,
        options: GenerationOptions,
        tokenizer: Tokenizer,
        on_news: Callable[[Generation], None] | None = None,
    ) -> None:
        self.prompt = prompt
        self.options = options
        self._on_news = on_news
        self._finished = 0
        self.has_news = False  # there is something that a client has not been told
        # Drawn once: whoever goes on with a text draws what the first one would have.
        seed = random.getrandbits(63) if options.seed is None else options.seed
        self.texts = [
            Text(
                self,
                (seed + index) % _SEEDS,
                Detokenizer(tokenizer, options.stop, prompt.tokens, options.min_tokens),
            )
            for index in range(options.n)
        ]

    @property
    def done(self) -> bool:
        """Every text is at its end."""
        return self._finished == len(self.texts)

    async def run(self, pipelines: Pipelines, wait: Wait) -> None:
        """Return when every text is at its end.

        Raises Refusal. Cancelling gives their places in the pipelines free.
        """
        running = [asyncio.create_task(self._run(text, pipelines, wait)) for text in self.texts]
        try:
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def flush(self) -> None:
        """Tell of a step, once for all texts that it went on with."""
        if self.has_news and self._on_news:
            self.has_news = False
            self._on_news(self)

    def ended(self) -> None:
        """One more text is at its end."""
        self._finished += 1
        self.has_news = True

    async def _run(self, text: Text, pipelines: Pipelines, wait: Wait) -> None:
        prompt, options = self.prompt.tokens, _sampling(self.options)

        async def ask(leader: Leader) -> None:
            so_far = {"seed": text.seed, "output": len(text.tokens)}
            await leader.generate(_ids(prompt + text.tokens), options | so_far, text)

        await pipelines.serve(ask, wait, lambda: len(text.tokens))


def _ids(tokens: list[int]) -> TensorView:
    data = np.array(tokens, dtype=np.int64).tobytes()
    return TensorView("input_ids", DATATYPES["INT64"], (len(tokens),), data)


def _sampling(options: GenerationOptions) -> dict[str, object]:
    return {
        "max_tokens": options.max_tokens,
        "min_tokens": options.min_tokens,
        "temperature": options.temperature,
        "top_k": max(options.top_k, 0),
        "top_p": options.top_p,
        "min_p": options.min_p,
        "repetition_penalty": options.repetition_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "stop_token_ids": list(options.stop_token_ids),
        "ignore_eos": options.ignore_eos,
        "logprobs": options.asked_logprobs,
        "priority": options.priority,
    }
