"""A toy language model that is exact on paper: the ring's tests need no checkpoint.

Every stage adds to each position the sum of all it has seen in that sequence, so a token depends
on every token before it, in order, at every stage: a lost, doubled or foreign token shows.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass, field

import torch

from stageline_worker.microbatch import Microbatch, ModelInfo, TensorSpec

VOCABULARY = 97
EOS = 96
MAX_LEN = 64
_PRIME = 1_000_003


@dataclass
class ToyStage:
    """One stage: `delay` seconds of work a microbatch; `poison` is a token that it fails on."""

    stage: int
    stages: int
    delay: float = 0.0
    poison: int = -1
    seen: dict[int, list[int]] = field(default_factory=dict)
    resets: int = 0
    device: str = "cpu"
    dtype: str = "float64"
    kv_tokens: int = 16 * MAX_LEN
    packs: bool = True

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            architecture="ToyForCausalLM",
            generates=True,
            layers=self.stages,
            vocab_size=VOCABULARY,
            max_model_len=MAX_LEN,
            eos_token_ids=(EOS,),
            pad_token_id=0,
            embeds_text=False,
            inputs=(
                TensorSpec("input_ids", "INT64", (-1, -1), limit=VOCABULARY),
                TensorSpec("attention_mask", "INT64", (-1, -1), optional=True, limit=2),
            ),
            outputs=(
                TensorSpec("sums", "FP64", (-1, -1)),
                TensorSpec("last", "FP64", (-1,)),
            ),
        )

    def forward(self, microbatch: Microbatch) -> Microbatch:
        time.sleep(self.delay)
        entering = microbatch.tensors["input_ids" if self.stage == 0 else "hidden_states"]
        if (entering == self.poison).any():
            raise ValueError(f"{self.poison} is poison\nand this line is not for users")
        rows = self._rows(microbatch, entering.reshape(1, -1) if microbatch.segments else entering)
        tensors = {"hidden_states": torch.tensor(rows, dtype=torch.float64)}
        if self.stage == self.stages - 1:
            tensors = self._leave(microbatch, tensors["hidden_states"])
        return Microbatch(tensors, microbatch.segments, microbatch.outputs)

    def reset(self) -> None:
        self.seen.clear()
        self.resets += 1

    def canary(self) -> Microbatch:
        return Microbatch({"input_ids": torch.zeros((1, 1), dtype=torch.int64)}, outputs=("last",))

    def _rows(self, microbatch, entering):
        if not microbatch.segments:
            return [_mixed([], row) for row in entering.to(torch.int64).tolist()]
        values, row = entering.to(torch.int64).tolist()[0], []
        for segment in microbatch.segments:
            if segment.start == 0:
                self.seen[segment.slot] = []
            seen = self.seen[segment.slot]
            assert len(seen) == segment.start, "the slot holds another sequence"
            row += _mixed(seen, values[len(row) : len(row) + segment.count])
        return [row]

    def _leave(self, microbatch, hidden):
        if not microbatch.segments:
            outputs = {"sums": hidden, "last": hidden[:, -1].contiguous()}
            wanted = microbatch.outputs or tuple(outputs)
            return {name: outputs[name] for name in wanted}
        tokens, end = [], 0
        for segment in microbatch.segments:
            end += segment.count
            if segment.sampling is not None:
                assert segment.sampling.position == segment.start + segment.count
                tokens.append(int(hidden[0, end - 1]) % VOCABULARY)
        return {"tokens": torch.tensor(tokens, dtype=torch.int64)}


def _mixed(seen: list[int], values: list[int]) -> list[int]:
    out = []
    for value in values:
        seen.append(value)
        out.append((value + sum(seen)) % _PRIME)
    return out


def toy(document, progress, **options) -> ToyStage:
    """Loads the toy for a stage document."""
    progress(512, 1024)
    progress(1024, 1024)
    return ToyStage(document.stage, document.stages, **options)


def holding(document, progress, seconds: float) -> ToyStage:
    """Loads the toy, and lets no other thread run for `seconds`, twice, while it does."""
    for _ in range(2):
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # PyDLL keeps the interpreter's lock
        time.sleep(0.05)
    return toy(document, progress)


def toy_sums(tokens: list[int], stages: int) -> list[int]:
    """What the uncut toy makes of one row of tokens."""
    for _ in range(stages):
        tokens = _mixed([], tokens)
    return tokens


def toy_tokens(prompt: list[int], count: int, stages: int) -> list[int]:
    """The tokens that the uncut toy generates, one after another."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(toy_sums(tokens, stages)[-1] % VOCABULARY)
    return tokens[len(prompt) :]
