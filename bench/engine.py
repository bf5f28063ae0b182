"""One process' engine against transformers' plain modules, for every dense architecture.

One stage holds the whole model, random weights in float32, and decodes 16 sequences at once on one
core. Compared are, step by step in turns in one process,

- plain: the same engine with the modules as transformers has them, the same packed attention and
  KV slots; also with one sequence;
- alone: plain, with one attention call for each sequence;
- generate: transformers' own `generate` with a padded batch of equally long prompts, whole runs.

Time is CPU time of the one thread that computes, so that others on the machine count less; a ratio
is the median over the steps of each pair's own ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import transformers
from torch import Tensor

from stageline_worker.microbatch import Microbatch, Sampling, Segment
from stageline_worker.model import Stage, load, loading, step
from stageline_worker.model.runs import Run

VOCABULARY, HIDDEN, PROMPT, SEED = 8000, 512, 100, 3
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": 1408,
    "num_attention_heads": 8, "max_position_embeddings": 512, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
GROUPED = {**COMMON, "num_key_value_heads": 4}
GEMMA = {**GROUPED, "head_dim": 64, "sliding_window": 256}
# name: (config class, options, what a number of layers is called)
DENSE: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("LlamaConfig", GROUPED, "num_hidden_layers"),
    "mistral": ("MistralConfig", GROUPED, "num_hidden_layers"),
    "qwen2": ("Qwen2Config", GROUPED, "num_hidden_layers"),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 64}, "num_hidden_layers"),
    "gemma2": ("Gemma2Config", GEMMA, "num_hidden_layers"),
    "gemma3": ("Gemma3TextConfig", GEMMA, "num_hidden_layers"),
    "phi3": ("Phi3Config", {**GROUPED, "sliding_window": None}, "num_hidden_layers"),
    "gpt_neox": ("GPTNeoXConfig", COMMON, "num_hidden_layers"),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": HIDDEN, "n_head": 8, "n_positions": 512},
        "n_layer",
    ),
    "opt": (
        "OPTConfig",
        {**COMMON, "ffn_dim": 2048, "word_embed_proj_dim": HIDDEN},
        "num_hidden_layers",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(DENSE)}; all of them")
    parser.add_argument("--quick", action="store_true", help="llama alone, for CI")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(f"hidden {HIDDEN}, {asked.layers} layers, vocabulary {VOCABULARY}, float32; "
          f"prompts of {PROMPT}; {asked.steps} steps; 1 thread, CPU time")  # fmt: skip
    print(f"{'batch ' + str(asked.batch):12}{'ms a step':>10}{'x plain':>9}{'x alone':>9}"
          f"{'largest difference of logits':>31}{'batch 1: x plain':>18}"
          f"{'batch 32: tokens/s':>20}{'x generate':>12}")  # fmt: skip
    for name in asked.names or (["llama"] if asked.quick else DENSE):
        with tempfile.TemporaryDirectory() as folder:
            make(name, asked.layers, Path(folder))
            show(name, Path(folder), asked.layers, asked.batch, asked.steps)


def make(name: str, layers: int, folder: Path) -> None:
    config, options, count = DENSE[name]
    torch.manual_seed(SEED)
    made = getattr(transformers, config)(**options, **{count: layers})
    transformers.AutoModelForCausalLM.from_config(made).float().save_pretrained(folder)


def show(name: str, folder: Path, layers: int, batch: int, steps: int) -> None:
    own = load_stage(folder, layers)
    with plain_modules():
        others = [load_stage(folder, layers) for _ in range(2)]
    ours, plain, alone = (Engine(stage, batch) for stage in (own, *others))
    take_turns(ours, plain, steps, alone)
    difference = agree(ours, plain)
    ratios = [against(ours, other) for other in (plain, alone)]
    seconds = statistics.median(ours.seconds)
    ours, plain = Engine(own, 1), Engine(others[0], 1)
    take_turns(ours, plain, steps)
    single = against(ours, plain)
    del plain, alone, others
    rate, by_generate = against_generate(own, folder, steps)
    print(f"{name:12}{1e3 * seconds:10.1f}{ratios[0]:9.2f}{ratios[1]:9.2f}{difference:31.1e}"
          f"{single:18.2f}{rate:20.0f}{by_generate:12.2f}", flush=True)  # fmt: skip


def take_turns(ours: Engine, plain: Engine, steps: int, alone: Engine | None = None) -> None:
    """Decode `steps` steps with each, after a few for what is made lazily."""
    engines = [ours, plain, *([alone] if alone else [])]
    for turn in range(steps + 3):
        if turn == 3:
            for engine in engines:
                engine.seconds.clear()
        for engine in (ours, plain):
            engine.step()
        if alone:
            with one_by_one():
                alone.step()


@dataclass
class Engine:
    """`batch` sequences of equal length that decode together."""

    stage: Stage
    batch: int
    seconds: list[float] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = torch.Generator().manual_seed(SEED)
        prompts = torch.randint(3, VOCABULARY, (self.batch, PROMPT), generator=random)
        for slot, prompt in enumerate(prompts):
            segment = Segment(slot, 0, PROMPT, Sampling(0, PROMPT))
            self.tokens.append(self._forward(prompt, (segment,)))
        self.tokens = [torch.cat(self.tokens)]

    def step(self) -> None:
        start = PROMPT + len(self.tokens) - 1
        segments = tuple(
            Segment(slot, start, 1, Sampling(0, start + 1)) for slot in range(self.batch)
        )
        began = time.thread_time()
        self.tokens.append(self._forward(self.tokens[-1], segments))
        self.seconds.append(time.thread_time() - began)

    def _forward(self, ids: Tensor, segments: tuple[Segment, ...]) -> Tensor:
        return self.stage.forward(Microbatch({"input_ids": ids}, segments)).tensors["tokens"]


def load_stage(folder: Path, layers: int) -> Stage:
    return load(str(folder), (0, layers), device="cpu", max_sequences=32)


@contextmanager
def plain_modules() -> Iterator[None]:
    with mock.patch.multiple(loading, hold=mock.DEFAULT, quicken=mock.DEFAULT):
        yield


@contextmanager
def one_by_one() -> Iterator[None]:
    def runs(slots: list[int], lengths: list[int]) -> tuple[Run, ...]:
        pairs = zip(slots, lengths, strict=True)
        return tuple(Run(row, slot, (length,)) for row, (slot, length) in enumerate(pairs))

    with mock.patch.object(step, "runs", runs):
        yield


def against(ours: Engine, other: Engine) -> float:
    pairs = zip(other.seconds, ours.seconds, strict=True)
    return statistics.median(theirs / own for theirs, own in pairs)


def agree(ours: Engine, plain: Engine) -> float:
    """The largest difference of logits over a prompt, against the largest logit; tokens must be
    equal."""
    assert all(map(torch.equal, ours.tokens, plain.tokens)), "greedy tokens differ"
    prompt = torch.arange(3, 3 + PROMPT)[None]
    own, theirs = (
        engine.stage.forward(Microbatch({"input_ids": prompt})).tensors["logits"]
        for engine in (ours, plain)
    )
    return ((own - theirs).abs().max() / theirs.abs().max()).item()


def against_generate(stage: Stage, folder: Path, steps: int) -> tuple[float, float]:
    """Tokens a second at batch 32, and how many times those of transformers' generate."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    random = torch.Generator().manual_seed(SEED)
    prompts = torch.randint(3, VOCABULARY, (32, PROMPT), generator=random)
    options = {"max_new_tokens": steps, "do_sample": False, "eos_token_id": None}
    options |= {"pad_token_id": 0, "attention_mask": torch.ones_like(prompts)}

    def engine() -> None:
        made = Engine(stage, 32)
        while len(made.tokens) < steps:
            made.step()

    rounds = [
        (cpu_seconds(engine), cpu_seconds(lambda: model.generate(prompts, **options)))
        for _ in range(2)
    ]
    own, theirs = (min(times) for times in zip(*rounds, strict=True))
    return 32 * steps / own, theirs / own


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    with torch.inference_mode():
        work()
    return time.thread_time() - began


if __name__ == "__main__":
    main()
