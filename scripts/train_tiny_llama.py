"""Train the byte-level Llama that ships in examples/models/tiny-llama.

No permissively licensed language model of a few megabytes is on the package registries, so the
repository makes its own. The text is the language reference inside Python's standard library
(`pydoc_data.topics`), under the PSF licence, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import math
import pydoc_data.topics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

SHIPPED = Path(__file__).resolve().parents[1] / "examples/models/tiny-llama"
END = "<|endoftext|>"
END_ID = 256  # behind the 256 bytes, whose ids are their values
VOCABULARY = 257
POSITIONS = 512
HELD_OUT_EVERY = 20  # one document in so many is never trained on
SAMPLE = "The value of the expression is "


@dataclass(frozen=True)
class Settings:
    """What the command line decides."""

    output: Path
    steps: int
    step_bytes: int
    context: int
    layers: int
    hidden_size: int
    learning_rate: float
    seed: int


# The text


def documents() -> list[str]:
    """The prose of each topic, a line a paragraph; tables, code and repeats are gone."""
    seen: set[str] = set()
    found = []
    for _, text in sorted(pydoc_data.topics.topics.items()):
        lines = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
        fresh = [line for line in dict.fromkeys(lines) if is_prose(line) and line not in seen]
        seen.update(fresh)
        found.append("\n".join(fresh))
    return [document for document in found if document]


def is_prose(line: str) -> bool:
    """Whether a paragraph reads like sentences."""
    letters = sum(letter.isalpha() or letter in " ,." for letter in line)
    return len(line) >= 80 and line.endswith((".", ":")) and letters >= 0.9 * len(line)


def encode(texts: list[str]) -> Tensor:
    """Bytes of all documents with an end-of-text id behind each: int64 [total]."""
    ids: list[int] = []
    for text in texts:
        ids += [*text.encode(), END_ID]
    return torch.tensor(ids)


def corpus() -> tuple[Tensor, Tensor]:
    """Training and held-out ids: int64 [total] each. A document is held out whole or not at all."""
    texts = documents()
    training = [text for index, text in enumerate(texts) if index % HELD_OUT_EVERY]
    return encode(training), encode(texts[::HELD_OUT_EVERY])


# The model


def build(settings: Settings) -> LlamaForCausalLM:
    """A fresh Llama; its embedding is also its head."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.hidden_size * 11 // 4,
        num_hidden_layers=settings.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
    )
    return LlamaForCausalLM(config)


def loss_of(model: LlamaForCausalLM, windows: Tensor) -> Tensor:
    """Mean loss in nats a token for windows int64 [rows, context + 1]."""
    logits = model(windows[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.inference_mode()
def bits_per_byte(model: LlamaForCausalLM, ids: Tensor, context: int) -> float:
    """Mean loss in bits a token over ids int64 [total], each window read without what is before."""
    windows = ids.unfold(0, context + 1, context)
    rows = [float(loss_of(model, chunk)) * len(chunk) for chunk in windows.split(16)]
    return sum(rows) / len(windows) / math.log(2)


def optimizers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_factor(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a short warm-up, level, then linearly to zero."""
    progress = (step + 1) / steps
    return min(1.0, progress / 0.03, (1.0 - progress) / 0.5 + 0.001)


def window_length(step: int, settings: Settings) -> int:
    """Short windows for most of the time: cheaper, and words are learnt before paragraphs."""
    return settings.context if step > settings.steps * 0.7 else settings.context // 4


def train(model: LlamaForCausalLM, ids: Tensor, settings: Settings) -> None:
    """Train in place on random windows of ids, and print a line now and then."""
    optims = optimizers(model, settings.learning_rate)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: rate_factor(step, settings.steps))
        for o in optims
    ]
    every = max(1, settings.steps // 20)
    started, recent = time.monotonic(), []
    for step in range(1, settings.steps + 1):
        length = window_length(step, settings)
        windows = ids.unfold(0, length + 1, 1)
        rows = windows[torch.randint(len(windows), (max(1, settings.step_bytes // length),))]
        loss = loss_of(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim, schedule in zip(optims, schedules, strict=True):
            optim.step()
            schedule.step()
            optim.zero_grad()
        recent.append(loss.item())
        if step % every == 0 or step == settings.steps:
            mean = sum(recent) / len(recent)
            seconds = time.monotonic() - started
            print(f"step {step:5,}  loss {mean:.3f} nats a byte  {seconds:5.0f} s", flush=True)
            recent.clear()


# What is saved


def tokenizer() -> Tokenizer:
    """Each UTF-8 byte is its own token, and every text comes back exactly.

    The end-of-text id has no spelling: text that contains its name is only bytes, and it decodes
    to nothing, so no prompt can forge it.
    """
    letters = byte_letters()
    vocabulary = {letter: value for value, letter in enumerate(letters)} | {END: END_ID}
    result = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    result.decoder = decoders.Sequence([decoders.Replace(END, ""), decoders.ByteLevel()])
    return result


def byte_letters() -> list[str]:
    """The printable letter by which byte-level tokenizers write each byte value."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in printable]
    return [chr(v) if v in printable else chr(256 + hidden.index(v)) for v in range(256)]


def save(model: LlamaForCausalLM, settings: Settings) -> LlamaForCausalLM:
    """Write the checkpoint in bfloat16 with its tokenizer, and return it as a reader gets it."""
    model.generation_config = GenerationConfig(bos_token_id=END_ID, eos_token_id=END_ID)
    model.to(torch.bfloat16).save_pretrained(settings.output)
    tokenizer().save(str(settings.output / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
    }
    (settings.output / "tokenizer_config.json").write_text(json.dumps(facts, indent=2) + "\n")
    return LlamaForCausalLM.from_pretrained(settings.output, dtype=torch.float32).eval()


def sample(model: LlamaForCausalLM) -> str:
    """What the model writes greedily behind the sample prompt."""
    prompt = torch.tensor([[*SAMPLE.encode()]])
    ids = model.generate(prompt, max_new_tokens=200, do_sample=False, pad_token_id=END_ID)
    return bytes(i for i in ids[0].tolist() if i < END_ID).decode(errors="replace")


def arguments() -> Settings:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train a byte-level Llama on the language reference inside Python's "
        "standard library. Prints its loss while it learns, its bits per byte on held-out "
        "documents, and what it writes. The same seed, Python, torch and machine give "
        "the same weights.",
        epilog="example: OMP_NUM_THREADS=1 python scripts/train_tiny_llama.py --output /tmp/tiny",
    )
    add = parser.add_argument
    add("--output", type=Path, default=SHIPPED, help="folder of the checkpoint (default: shipped)")
    add("--steps", type=int, default=3600, help="optimizer steps (default: %(default)s)")
    add("--step-bytes", type=int, default=1024, help="bytes in a step (default: %(default)s)")
    add("--context", type=int, default=512, help="bytes in a window (default: %(default)s)")
    add("--layers", type=int, default=6, help="decoder layers (default: %(default)s)")
    add("--hidden-size", type=int, default=128, help="width of a layer (default: %(default)s)")
    add("--learning-rate", type=float, default=1e-2, help="at its peak (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights and windows (default: %(default)s)")
    settings = Settings(**vars(parser.parse_args()))
    if not 4 <= settings.context <= POSITIONS:
        parser.error(f"--context must be 4 to {POSITIONS}, the positions of the model")
    if settings.hidden_size % 8:
        parser.error("--hidden-size must be a multiple of 8: 4 heads of an even width")
    return settings


def main() -> None:
    settings = arguments()
    torch.set_num_threads(1)  # sums in one order: the same weights each time
    torch.manual_seed(settings.seed)
    logging.disable_progress_bar()
    training, held_out = corpus()
    model = build(settings)
    print(f"{len(training):,} bytes to learn from, {len(held_out):,} held out", flush=True)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    train(model, training, settings)
    model = save(model, settings)
    print(f"held out: {bits_per_byte(model, held_out, settings.context):.3f} bits a byte")
    print(f"greedy: {sample(model)}")


if __name__ == "__main__":
    main()
