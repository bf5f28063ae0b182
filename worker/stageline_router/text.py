"""Text to token ids and back, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import tokenizers

from stageline_router.errors import Invalid
from stageline_router.tensors import Input
from stageline_sources import Reader, SourceError, is_remote, open_source

_FILE = "tokenizer.json"
_LARGEST = 100 << 20  # bytes; three times the largest that is known
_UNFINISHED = "\ufffd"  # how a decoder shows bytes that are no whole character (yet)
_LONGEST_TOKEN = 64  # characters, on the average of a whole text
_CONTEXT = 64  # tokens of a prompt that an answer's first ones are decoded with
_LAST = 3  # tokens at the end that may belong to a character that is not whole yet


class Tokenizer:
    """The tokenizer that lies beside a checkpoint."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        # What is too long is refused with its length, never cut; rows are padded when they meet.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = frozenset(token for token, kind in added.items() if kind.special)

    @classmethod
    def load(cls, uri: str) -> Tokenizer | None:
        """Of the model at `uri`: a folder, file://, hf:// or s3://; None when it has no tokenizer.

        Raises ValueError, a sentence, when the file is damaged or cannot be had.
        """
        data = _fetch(uri) if is_remote(uri) else _read(uri)
        if data is None:
            return None
        try:
            return cls(tokenizers.Tokenizer.from_buffer(data))
        except Exception as error:  # the library raises no class of its own
            raise ValueError(f"{uri}/{_FILE} is no tokenizer: {error}") from None

    def encode(self, text: str) -> list[int]:
        """Ids with the model's own special tokens around them; none when these would be all.

        Raises Invalid.
        """
        try:
            encoding = self._tokenizer.encode(text)
        except Exception as error:  # the library raises no class of its own
            raise Invalid(f"the model's tokenizer cannot read this text: {error}") from None
        ids: list[int] = encoding.ids
        return [] if all(encoding.special_tokens_mask) else ids

    def has_text(self, token: int) -> bool:
        """False for special tokens and for ids past the vocabulary: decode leaves them out."""
        return token not in self._special and self._tokenizer.id_to_token(token) is not None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids, special tokens left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


def _read(uri: str) -> bytes | None:
    folder = unquote(urlsplit(uri).path) if uri.startswith("file://") else uri
    path = Path(folder) / _FILE
    return path.read_bytes() if path.is_file() else None


def _fetch(uri: str) -> bytes | None:
    try:
        return Reader(open_source(uri)).whole(_FILE, _LARGEST)
    except SourceError as error:
        raise ValueError(str(error)) from None


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


class Detokenizer:
    """Tokens in, the text that is certain out.

    Decoding is not additive: a character may span tokens, and a token's text may depend on the
    one before it. So the last certain tokens are decoded again together with the new ones, and
    what comes beyond their text is new; the window stays a few tokens long. What may become a
    stop string is held back until it is none. The first tokens are decoded after those of
    `prompt`: alone, many tokenizers would drop the space that they begin with.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), prompt: Sequence[int] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._certain = _context(tokenizer, prompt)  # tokens whose text is out
        self._new: list[int] = []
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that has become certain with this token; may be empty."""
        # What has no text would only make the window longer, and that without end.
        if self.stopped or not self._tokenizer.has_text(token):
            return ""
        self._new.append(token)
        return self._release(self._decode(final=False), final=False)

    def finish(self) -> str:
        """What was held back, now that nothing follows."""
        if self.stopped:
            return ""
        return self._release(self._decode(final=True), final=True)

    def _decode(self, *, final: bool) -> str:
        text = self._tokenizer.decode(self._certain + self._new)
        if final or not text.endswith(_UNFINISHED):
            return self._commit(text, len(self._new))
        # The end may be a part of a character. What is before it is certain, and so is what cannot
        # be part of one: a character has at most four bytes, a token at least one.
        for last in range(1, min(_LAST, len(self._new) - 1) + 1):
            count = len(self._new) - last
            part = self._tokenizer.decode(self._certain + self._new[:count])
            hopeless = last == _LAST and text.startswith(part)
            if hopeless or not part.endswith(_UNFINISHED):
                return self._commit(part, count)
        return ""

    def _commit(self, text: str, count: int) -> str:
        """Take `text`, of the window up to the first `count` new tokens, as certain."""
        said = text[len(self._tokenizer.decode(self._certain)) :]
        taken, self._new = self._new[:count], self._new[count:]
        # Without a character of its own a token is no context for the next: keep the one before.
        self._certain = taken if said else self._certain + taken
        return said

    def _release(self, text: str, *, final: bool) -> str:
        text = self._held + text
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if final else self._may_stop(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _may_stop(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0


def _context(tokenizer: Tokenizer, prompt: Sequence[int]) -> list[int]:
    near = list(prompt[-_CONTEXT:])
    # Cut within a character, some decoders make nonsense of all bytes up to the next word.
    return list(prompt) if tokenizer.decode(near).startswith(_UNFINISHED) else near
