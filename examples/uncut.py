"""The same checkpoints in one process, whole, by transformers alone: what answers must equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoModel, AutoModelForCausalLM
from transformers.utils import logging

torch.set_num_threads(1)  # as each stage has
logging.disable_progress_bar()


def tokens(folder: Path, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and attention mask int64 [texts, longest] of a padded batch."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(texts)
    ids = np.array([row.ids for row in encoded], dtype=np.int64)
    return ids, np.array([row.attention_mask for row in encoded], dtype=np.int64)


@torch.inference_mode()
def hidden_states(
    folder: Path, ids: NDArray[np.int64], mask: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The encoder's last_hidden_state float32 [rows, tokens, width]."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    output = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    return output.last_hidden_state.numpy()


@torch.inference_mode()
def greedy_text(folder: Path, prompt: str, max_tokens: int) -> str:
    """What the language model writes behind the prompt when it takes the likeliest token."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    mask = torch.ones_like(ids)
    written = model.generate(ids, attention_mask=mask, max_new_tokens=max_tokens, do_sample=False)
    return tokenizer.decode(written[0, ids.shape[1] :].tolist())
