"""A zoo decoder with a tokenizer: byte-level, every byte a token, so that any text can be said."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from support.zoo import checkpoint

FIRST_BYTE = 3  # ids 0 to 2 are padding, beginning and end


@cache
def lettered(name: str = "llama") -> Path:
    """A folder with the checkpoint's files and a tokenizer.json."""
    folder = Path(mkdtemp(prefix=f"stageline-{name}-"))
    for file in checkpoint(name).iterdir():
        shutil.copy(file, folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = {"<pad>": 0, "<s>": 1, "</s>": 2}
    vocabulary = special | {letter: FIRST_BYTE + i for i, letter in enumerate(letters)}
    # A random model draws ids past the alphabet too: each needs a text.
    vocabulary |= {f"<{i}>": i for i in range(len(vocabulary), 320)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
