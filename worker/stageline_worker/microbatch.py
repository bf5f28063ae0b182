"""What passes through a stage, and what a stage is to the ring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

# Tuples, as one of each is made for every token at every stage: a frozen dataclass takes three
# times as long.


class Sampling(NamedTuple):
    """How to draw one token. Equal values, position and logits draw the same token anywhere."""

    seed: int
    position: int  # of the token that is drawn, counted from the prompt's first token
    temperature: float = 0.0  # 0: greedy
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0  # of the likeliest token's probability; 0: all
    repetition_penalty: float = 1.0  # of tokens in prompt and output; 1: none
    presence_penalty: float = 0.0  # taken from the logit of a token in the output
    frequency_penalty: float = 0.0  # the same, times its count in the output
    banned: tuple[int, ...] = ()  # ids that may not be drawn: an end that would come too soon
    logprobs: int | None = None  # how many of the likeliest tokens to tell beside the drawn one


class Segment(NamedTuple):
    """Tokens [start, start + count) of the sequence that holds `slot` of the KV cache.

    A segment with start 0 takes the slot over: what the slot held before is gone.
    `sampling` is None while a prompt is not yet at its end. `prompt` is the length of the
    sequence's prompt where its sampling has penalties, on every one of its segments: the last stage
    then counts the slot's tokens, those from `prompt` on as output.
    """

    slot: int
    start: int
    count: int  # type: ignore[assignment]  # in place of the tuple's method
    sampling: Sampling | None = None
    prompt: int | None = None


@dataclass(frozen=True, slots=True)
class Microbatch:
    """Work for one stage.

    Inference (`segments` empty): on stage 0 `tensors` are the model's inputs, batch first; on
    later stages `hidden_states` [batch, tokens, hidden] and whatever each stage needs beside it
    (`attention_mask`); from the last stage the outputs named in `outputs` (None: all).

    Generation: on stage 0 `input_ids` int64 [tokens], the tokens of all segments one after
    another; on later stages `hidden_states` [1, tokens, hidden], and `input_ids` beside it when a
    segment has `prompt`; from the last stage `tokens` int64 [draws], one for each segment that has
    `sampling`. When a sampling asks for logprobs there are also `logprobs` float32 and
    `logprob_ids` int64, both [draws, 1 + most that any asks for]: first the drawn token's, then
    the likeliest in order, of the model's own distribution (before temperature and penalties);
    what a row did not ask for has id -1.
    """

    tensors: dict[str, Tensor]
    segments: tuple[Segment, ...] = ()
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output as clients see it: -1 is any size, dimension 0 is the batch.

    Integers must be 0 to `limit` - 1; 0 lets any value through.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False
    limit: int = 0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a leader tells routers of its model."""

    architecture: str
    generates: bool
    layers: int
    vocab_size: int  # 0: takes no tokens
    max_model_len: int  # 0: takes no tokens
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    embeds_text: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class StageModel(Protocol):
    """Layers of a model, loaded. The ring calls it from one thread."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def device(self) -> str:
        """Where it computes: cpu, or cuda:N."""
        ...

    @property
    def dtype(self) -> str:
        """What it computes in: float32, bfloat16 or float16."""
        ...

    @property
    def kv_tokens(self) -> int:
        """Tokens whose keys and values it can hold, all slots together; 0: it generates nothing."""
        ...

    @property
    def packs(self) -> bool:
        """Whether segments share a microbatch's time; else each takes as long as it does alone."""
        ...

    def forward(self, microbatch: Microbatch) -> Microbatch:
        """Take the microbatch through this stage's layers."""
        ...

    def reset(self) -> None:
        """Forget every sequence: a new session begins."""
        ...

    def canary(self) -> Microbatch:
        """A small microbatch for stage 0 that uses no slot (inference form)."""
        ...
