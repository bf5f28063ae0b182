"""Streams of text: the deltas are the whole text, and no character is ever split."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from stageline_router.detokenizer import Detokenizer
from stageline_router.text import Tokenizer


def byte_level() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Library(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return Tokenizer(tokenizer)


def words() -> Tokenizer:
    """Pieces whose text depends on what is before them: the first word has no space."""
    pieces = ["▁", "▁the", "▁ring", "▁turn", "s", ".", "▁a", "é", "<end>"]
    tokenizer = Library(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, "▁"))
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<end>"])
    return Tokenizer(tokenizer)


def fallback() -> Tokenizer:
    """Words where it has them, bytes where not: a run of bytes is one text or all broken."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁a", "b", "▁", "é", "<end>"]
    model = models.BPE({p: i for i, p in enumerate(pieces)}, [], byte_fallback=True)
    tokenizer = Library(model)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<end>"])
    return Tokenizer(tokenizer)


def word_pieces() -> Tokenizer:
    pieces = ["ring", "##s", "turn", "##ing", ".", ",", "'", "[SEP]"]
    tokenizer = Library(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="."))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[SEP]"])
    return Tokenizer(tokenizer)


BYTES = byte_level()
FALLBACK = fallback()
PIECES = word_pieces()
IDS = {byte: BYTES.encode(chr(byte))[0] for byte in range(0x20, 0x7F)}
ALL = list(range(256))


def deltas(tokenizer: Tokenizer, tokens: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    detokenizer = Detokenizer(tokenizer, stop)
    made = [detokenizer.push(token) for token in tokens]
    return [*made, detokenizer.finish()]


@given(st.text(max_size=40))
@example("ünïcode 🚂🚃 e\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467")
@example("a genuine \ufffd is text too")
def test_a_text_comes_back_without_a_broken_character(text):
    made = deltas(BYTES, BYTES.encode(text) if text else [])
    assert "".join(made) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in delta for delta in made), f"a character was split: {made}"


@given(st.lists(st.sampled_from(ALL), max_size=40))
def test_whatever_bytes_come_the_deltas_are_the_decoded_whole(tokens):
    assert "".join(deltas(BYTES, tokens)) == BYTES.decode(tokens)


@given(st.lists(st.integers(0, 8), max_size=20))
def test_pieces_keep_their_spaces(tokens):
    assert "".join(deltas(words(), tokens)) == words().decode(tokens)


@given(st.lists(st.integers(0, 7), max_size=20))
def test_word_pieces_join_as_in_the_whole(tokens):
    assert "".join(deltas(PIECES, tokens)) == PIECES.decode(tokens)


# Spelled in bytes, U+FFFD looks like bytes that are broken: a stream cannot tell the two apart.
CHARACTERS = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=3)


@given(st.lists(st.lists(st.integers(256, 260), max_size=3) | CHARACTERS, max_size=9))
def test_bytes_that_stand_for_characters_never_show_broken(parts):
    tokens = [t for part in parts for t in (part.encode() if isinstance(part, str) else part)]
    made = deltas(FALLBACK, tokens)
    assert "".join(made) == FALLBACK.decode(tokens)
    assert not any("\ufffd" in delta for delta in made), f"a character was split: {made}"


@given(st.lists(st.integers(0, 260), max_size=30))
def test_broken_bytes_of_a_fallback_cost_no_text_beside_them(tokens):
    # A broken byte breaks its whole run, also what of it was shown before: only text can be equal.
    words = [FALLBACK.decode([token]) for token in tokens if token in (256, 257, 259)]
    shown = "".join(deltas(FALLBACK, tokens))
    at = 0
    for word in words:
        at = shown.find(word, at)
        assert at >= 0, f"{word!r} is missing from {shown!r}"
        at += len(word)


@pytest.mark.parametrize("token", [260, 10**6], ids=["special", "past the vocabulary"])
def test_tokens_without_text_make_the_window_no_longer(token):
    windows = []
    decode = FALLBACK.decode

    class Watched(Tokenizer):
        def decode(self, ids):
            windows.append(len(ids))
            return decode(ids)

    watched = Watched(FALLBACK._tokenizer)
    tokens = [256, *[token] * 50, 0xC3, *[token] * 50, 0xA9, 257]
    assert "".join(deltas(watched, tokens)) == decode(tokens) == "aéb"
    assert max(windows) <= 8, f"{max(windows)} tokens were decoded at once"


@given(st.lists(st.integers(0, 7), min_size=1, max_size=90), st.lists(st.integers(0, 7)))
@example([1, 2], [3, 4])
def test_an_answer_goes_on_where_its_prompt_ends(prompt, answer):
    tokenizer = words()
    detokenizer = Detokenizer(tokenizer, prompt=prompt)
    made = "".join(map(detokenizer.push, answer)) + detokenizer.finish()
    assert tokenizer.decode(prompt) + made == tokenizer.decode(prompt + answer)


@given(st.lists(st.sampled_from(ALL), min_size=20, max_size=60))
def test_a_stream_never_stalls(tokens):
    made = deltas(BYTES, tokens)
    silent = max(map(len, "".join("x" if delta else " " for delta in made).split("x")))
    assert silent <= 8, f"{silent} tokens in a row gave no text"


def test_text_comes_as_soon_as_it_is_certain():
    assert deltas(BYTES, BYTES.encode("ring")) == ["r", "i", "n", "g", ""]
    assert deltas(BYTES, BYTES.encode("é!")) == ["", "é", "!", ""]


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_a_stop_string_ends_the_text_where_it_begins(text, stop):
    detokenizer = Detokenizer(BYTES, stop)
    made = ""
    for token in BYTES.encode(text) if text else []:
        made += detokenizer.push(token)
        if detokenizer.stopped:
            break
        assert not any(one in made for one in stop), "a stop string was shown"
    made += detokenizer.finish()
    # The stop that is complete first ends it; of several complete at once the earliest.
    ends = [text.find(one) + len(one) for one in stop if one in text]
    seen = text[: min(ends)] if ends else text
    starts = [seen.find(one) for one in stop if one in seen]
    assert made == (seen[: min(starts)] if ends else text)
    assert detokenizer.stopped == bool(ends)


@given(
    st.text("ab", max_size=20),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(0, 12),
)
@example("aab", ["aa", "ab"], 2)
def test_a_stop_string_counts_once_it_ends_after_the_first_tokens(text, stop, least):
    detokenizer = Detokenizer(BYTES, stop, min_tokens=least)
    made, taken = "", 0
    for token in BYTES.encode(text) if text else []:
        made += detokenizer.push(token)
        taken += 1
        if detokenizer.stopped:
            break
    made += detokenizer.finish()
    ends = [end for end in range(least + 1, len(text) + 1) if text[:end].endswith(tuple(stop))]
    if not ends:
        assert (made, detokenizer.stopped) == (text, False)
        return
    assert taken == ends[0], "it did not stop with the token that completes the stop string"
    begins = [ends[0] - len(one) for one in stop if text[: ends[0]].endswith(one)]
    assert made == text[: min(begins)]


@pytest.mark.parametrize("content", ["{", '{"model": 3}', ""])
def test_a_damaged_tokenizer_is_a_sentence(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer"):
        Tokenizer.load(f"file://{tmp_path}")


def test_a_folder_without_one_has_none(tmp_path):
    assert Tokenizer.load(str(tmp_path)) is None


def test_padding_and_truncation_of_the_file_are_off(tmp_path):
    library = byte_level()._tokenizer
    library.enable_truncation(4)
    library.enable_padding(length=8)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(str(tmp_path))
    assert tokenizer is not None
    assert len(tokenizer.encode("sixsix")) == 6
