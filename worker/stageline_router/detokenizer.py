"""Token ids to text, piece by piece, in a time that does not depend on what came before."""

from __future__ import annotations

from collections.abc import Sequence

from stageline_router.text import Tokenizer

_UNFINISHED = "\ufffd"  # how a decoder shows bytes that are no whole character (yet)
_CONTEXT = 64  # tokens of a prompt that an answer's first ones are decoded with
_LAST = 3  # tokens at the end that may belong to a character that is not whole yet
_WINDOW = 4  # tokens whose text is out that are decoded again with the new ones, about


class Detokenizer:
    """Tokens in, the text that is certain out.

    Decoding is not additive: a character may span tokens, and a token's text may depend on the
    one before it. So the last certain tokens are decoded again together with the new ones, and
    what comes beyond their text is new; the window stays a few tokens long. What may become a
    stop string is held back until it is none. The first tokens are decoded after those of
    `prompt`: alone, many tokenizers would drop the space that they begin with.

    A stop string counts when it ends in the text of a later token than the first `min_tokens`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        prompt: Sequence[int] = (),
        min_tokens: int = 0,
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._longest = max(map(len, self._stop), default=1) - 1
        self._certain = _context(tokenizer, prompt)  # tokens whose text is out
        self._text = tokenizer.decode(self._certain)
        self._near = self._certain  # the fewest of them that the next token is to be read after
        self._new: list[int] = []
        self._held = ""
        self._spared = min_tokens  # tokens to come in which no stop string counts
        self._free = 0  # characters of `_held` that are theirs
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that has become certain with this token; may be empty."""
        spared = self._spared > 0
        self._spared -= spared
        # What has no text would only make the window longer, and that without end.
        if self.stopped or not self._tokenizer.has_text(token):
            return ""
        self._new.append(token)
        text = self._decode(final=False)
        return self._release(text, spared=spared) if self._stop else text

    def finish(self) -> str:
        """What was held back, now that nothing follows."""
        if self.stopped:
            return ""
        return self._release(self._decode(final=True), final=True, spared=self._spared > 0)

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
        said = text[len(self._text) :]
        taken, self._new = self._new[:count], self._new[count:]
        # Without a character of its own a token is no context for the next: keep the one before.
        self._near = taken if said else self._near + taken
        self._certain, self._text = self._certain + taken, text
        if len(self._certain) > max(_WINDOW, len(self._near)):
            self._certain, self._text = self._near, self._tokenizer.decode(self._near)
        return said

    def _release(self, text: str, *, final: bool = False, spared: bool = False) -> str:
        text = self._held + text
        free = len(text) if spared else self._free
        found = [at for stop in self._stop if (at := _find(text, stop, free)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if final else self._may_stop(text)
        out = len(text) - keep
        self._held, self._free = text[out:], max(0, free - out)
        return text[:out]

    def _may_stop(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        for length in range(min(self._longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0


def _find(text: str, stop: str, free: int) -> int:
    """Where `stop` is that ends after the first `free` characters; -1 when nowhere."""
    return text.find(stop, max(0, free + 1 - len(stop)))


def _context(tokenizer: Tokenizer, prompt: Sequence[int]) -> list[int]:
    near = list(prompt[-_CONTEXT:])
    # Cut within a character, some decoders make nonsense of all bytes up to the next word.
    return list(prompt) if tokenizer.decode(near).startswith(_UNFINISHED) else near
