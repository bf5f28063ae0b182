"""What spec.model.weightDtype float16 gains on a CPU, and what it does to a trained model.

Speed: one process decodes with a whole llama (bench/engine.py's), steps of all forms in turns on
one core, in CPU time. Effect: the model that ships in examples/models/tiny-llama, whose checkpoint
is in bfloat16, and the same with float32 noise on its weights, which no half type can hold:

- bits a byte on the documents that its training never saw;
- greedy tokens that are those of float32, of prompts out of these documents, up to the first that
  is not: behind it a text is another text.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import torch
import transformers
from engine import DENSE, Engine, make
from torch import Tensor
from torch.nn.functional import cross_entropy

from stageline_worker.microbatch import Microbatch, Sampling, Segment
from stageline_worker.model import Stage, load

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from train_tiny_llama import END_ID, POSITIONS, SHIPPED, corpus  # noqa: E402

FORMS = {
    "float32": ("float32", None),
    "float32, weights float16": ("float32", "float16"),
    "bfloat16": ("bfloat16", None),
}
PROMPT, ANSWER = 64, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", choices=sorted(DENSE), default="llama")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="few steps and prompts")
    asked = parser.parse_args()
    if asked.quick:
        asked.steps, asked.prompts = 6, 8
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    show_speed(asked.architecture, asked.layers, asked.steps)
    with folders() as models:
        for title, folder in models.items():
            show_effect(title, folder, asked.prompts)


def show_speed(name: str, layers: int, steps: int) -> None:
    print(f"{name}, hidden 512, {layers} layers, 1 thread, CPU time")
    print(f"{'':26}{'batch 1: ms a step':>20}{'x float32':>11}"
          f"{'batch 16: ms a step':>21}{'x float32':>11}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        make(name, layers, Path(folder))
        stages = {form: load_form(Path(folder), layers, form) for form in FORMS}
    columns = [speeds(stages, batch, steps) for batch in (1, 16)]
    for form in FORMS:
        cells = (f"{1e3 * seconds[form]:{width}.1f}{ratios[form]:11.2f}"
                 for (seconds, ratios), width in zip(columns, (20, 21), strict=True))  # fmt: skip
        print(f"{form:26}{''.join(cells)}", flush=True)


def speeds(
    stages: dict[str, Stage], batch: int, steps: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds a step of each form, and how many times as fast as float32 it is."""
    engines = {form: Engine(stage, batch) for form, stage in stages.items()}
    for turn in range(steps + 3):
        for engine in engines.values():
            engine.step()
            if turn == 2:  # once for what is made lazily
                engine.seconds.clear()
    plain = engines["float32"].seconds
    ratios = {
        form: statistics.median(a / b for a, b in zip(plain, engine.seconds, strict=True))
        for form, engine in engines.items()
    }
    return {form: statistics.median(engine.seconds) for form, engine in engines.items()}, ratios


@contextmanager
def folders() -> Iterator[dict[str, Path]]:
    """The shipped checkpoint, and one whose weights need all bits of a float32."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32)
        torch.manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1 + 2**-9 * (2 * torch.rand_like(weight) - 1))
        model.save_pretrained(folder)
        yield {"tiny-llama as it ships": SHIPPED, "tiny-llama with bits of float32": Path(folder)}


def show_effect(title: str, folder: Path, prompts: int) -> None:
    _, held_out = corpus()
    windows = held_out.unfold(0, PROMPT, len(held_out) // prompts)[:prompts]
    print(f"\n{title}: {len(held_out):,} bytes held out; {prompts} prompts of {PROMPT}")
    print(f"{'':26}{'bits a byte':>13}{'greedy tokens as in float32':>30}")
    expected: Tensor | None = None
    for form in FORMS:
        stage = load_form(folder, 6, form)
        tokens = greedy(stage, windows)
        expected = tokens if expected is None else expected
        same = sum(map(agreeing, tokens.tolist(), expected.tolist()))
        print(f"{form:26}{bits_per_byte(stage, held_out):13.4f}"
              f"{same:>14} of {tokens.numel()} ({same / tokens.numel():.1%})",
              flush=True)  # fmt: skip


def load_form(folder: Path, layers: int, form: str) -> Stage:
    dtype, weights = FORMS[form]
    return load(str(folder), (0, layers), dtype=dtype, weight_dtype=weights, device="cpu",
                max_sequences=32)  # fmt: skip


def bits_per_byte(stage: Stage, ids: Tensor) -> float:
    """Mean loss in bits, each window read without what is before it."""
    windows = ids.unfold(0, POSITIONS, POSITIONS - 1)
    total = 0.0
    for rows in windows.split(8):
        logits = stage.forward(Microbatch({"input_ids": rows})).tensors["logits"].float()
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())
        total += loss.item() * len(rows)
    return total / len(windows) / math.log(2)


def greedy(stage: Stage, prompts: Tensor) -> Tensor:
    """ANSWER tokens behind each prompt, int64 [prompts, ANSWER]."""
    batches = (_together(stage, rows) for rows in prompts.split(32))
    return torch.cat(list(batches))


def _together(stage: Stage, prompts: Tensor) -> Tensor:
    made: list[Tensor] = []
    for step in range(ANSWER):
        start, count = (PROMPT + step - 1, 1) if step else (0, PROMPT)
        sampling = Sampling(0, start + count, banned=(END_ID,))
        segments = tuple(Segment(slot, start, count, sampling) for slot in range(len(prompts)))
        ids = made[-1] if made else prompts.flatten()
        made.append(stage.forward(Microbatch({"input_ids": ids}, segments)).tensors["tokens"])
    return torch.stack(made, dim=1)


def agreeing(made: list[int], expected: list[int]) -> int:
    """Tokens before the first that differs."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(made, expected, strict=True))
    )


if __name__ == "__main__":
    main()
