"""Text to token ids and back."""

from __future__ import annotations

import tokenizers

from stageline_router.beside import read_beside
from stageline_router.errors import Invalid
from stageline_router.tensors import Input

_FILE = "tokenizer.json"
_LARGEST = 100 << 20  # bytes; three times the largest that is known
_LONGEST_TOKEN = 64  # characters, on the average of a whole text


class Tokenizer:
    """The tokenizer that lies beside a checkpoint."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        # What is too long is refused with its length, never cut; rows are padded when they meet.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = frozenset(token for token, kind in added.items() if kind.special)
        self._spoken: set[int] = set()  # ids that are known to have text

    @classmethod
    def load(cls, uri: str) -> Tokenizer | None:
        """Of the model at `uri`: a folder, file://, hf:// or s3://; None when it has no tokenizer.

        Raises ValueError, a sentence, when the file is damaged or cannot be had.
        """
        data = read_beside(uri, _FILE, _LARGEST)
        if data is None:
            return None
        try:
            return cls(tokenizers.Tokenizer.from_buffer(data))
        except Exception as error:  # the library raises no class of its own
            raise ValueError(f"{uri}/{_FILE} is no tokenizer: {error}") from None

    def encode(self, text: str, *, bare: bool = False) -> list[int]:
        """Ids with the model's own special tokens around them; none when these would be all.

        `bare`: without those around, for a text that spells them itself. Raises Invalid.
        """
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=not bare)
        except Exception as error:  # the library raises no class of its own
            raise Invalid(f"the model's tokenizer cannot read this text: {error}") from None
        ids: list[int] = encoding.ids
        return [] if not bare and all(encoding.special_tokens_mask) else ids

    def has_text(self, token: int) -> bool:
        """False for special tokens and for ids past the vocabulary: decode leaves them out."""
        if token in self._spoken:  # a tenth of the time that asking the library takes
            return True
        if token in self._special or self._tokenizer.id_to_token(token) is None:
            return False
        self._spoken.add(token)
        return True

    def decode(self, ids: list[int]) -> str:
        """The text of these ids, special tokens left out."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def name(self, token: int, after: int | None) -> str:
        """What this token alone says behind `after`; a special token's own name."""
        if not self.has_text(token):
            return self._tokenizer.id_to_token(token) or ""
        if after is None or not self.has_text(after):
            return self.decode([token])
        before = self.decode([after])
        both = self.decode([after, token])
        return both[len(before) :] if both.startswith(before) else self.decode([token])


def read_text(given: Input) -> list[str]:
    """The texts of a BYTES input of shape [n] or [n, 1]. Raises Invalid."""
    if given.datatype != "BYTES":
        raise Invalid(f"input {given.name} is {given.datatype}: text is BYTES")
    if len(given.shape) not in (1, 2) or given.shape[1:] not in ((), (1,)):
        raise Invalid(f"input {given.name} has shape {list(given.shape)}: send [n] or [n, 1]")
    if not given.elements:
        raise Invalid(f"input {given.name} has no text")
    return [_text(given.name, row, element) for row, element in enumerate(given.elements)]


def _text(name: str, row: int, element: bytes) -> str:
    try:
        text = element.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"text {row} of {name} is no UTF-8: byte {error.start} is wrong") from None
    if not text:
        raise Invalid(f"text {row} of {name} is empty")
    return text


def check_size(name: str, text: str, max_tokens: int) -> None:
    """Refuse on sight what is far too long: its tokens would take a hundred times its memory.

    Raises Invalid. `max_tokens` 0 is no limit.
    """
    if max_tokens and len(text) > max_tokens * _LONGEST_TOKEN:
        raise Invalid(
            f"{name} has {len(text)} characters, and the model takes at most {max_tokens} tokens: "
            "shorten it"
        )
