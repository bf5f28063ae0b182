"""Ranges ask for what is wanted and nothing else; whatever breaks, each byte arrives once."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageline_sources import Piece, Reader, RemoteFile, SourceError, Span, is_remote, open_source
from stageline_sources.errors import Interruption
from stageline_sources.ranges import pieces
from stageline_sources.source import Body

CONTENT = bytes(range(251)) * 8


@st.composite
def layouts(draw):
    """Spans in file order, with and without gaps, some of no bytes; and the largest request."""
    spans, end = [], {"a": 0, "b": 0}
    for file in sorted(draw(st.lists(st.sampled_from("ab"), max_size=12))):
        begin = end[file] + draw(st.sampled_from([0, 0, 1, 7]))
        size = draw(st.integers(0, 40))
        spans.append(Span(file, begin, memoryview(bytearray(size))))
        end[file] = begin + size
    return spans, draw(st.integers(1, 50))


@given(layouts())
def test_pieces_are_the_spans_no_more_no_less_and_few(layout):
    spans, largest = layout
    made = pieces(spans, largest)
    wanted = [(span.file, at) for span in spans for at in range(span.begin, span.end)]
    asked = [(piece.file, at) for piece in made for at in range(piece.begin, piece.end)]
    assert asked == wanted
    assert all(0 < piece.end - piece.begin <= largest for piece in made)
    for one, other in pairwise(made):
        touching = (one.file, one.end) == (other.file, other.begin)
        assert not touching or other.end - one.begin > largest - len(one.into[-1]) - len(
            other.into[0]
        ), "two requests that could have been one"


def test_neighbours_are_one_request():
    spans = [Span("a", at, memoryview(bytearray(10))) for at in range(5, 55, 10)]
    assert [(piece.begin, piece.end) for piece in pieces(spans)] == [(5, 55)]


class Breaking:
    """A source of one file `f`: of each answer only so many bytes come; None is a busy answer."""

    uri = "s3://bucket/model"
    commit = ""

    def __init__(self, cuts=(), content=CONTENT, chunk=13):
        self.cuts, self.content, self.chunk = list(cuts), content, chunk
        self.asked = []

    @contextmanager
    def open(self, name, part=None, version=""):
        self.asked.append(part)
        begin, end = part or (0, len(self.content))
        cut = self.cuts.pop(0) if self.cuts else end
        if cut is None:
            raise Interruption("busy")
        if name != "f":
            yield None
            return
        yield Body(len(self.content), "v1", self._chunks(begin, min(end, begin + cut), end))

    def _chunks(self, begin, until, end):
        for start in range(begin, until, self.chunk):
            yield self.content[start : min(start + self.chunk, until)]
        if until < end and until % 2:  # half of all broken connections say so
            raise Interruption("reset")


@given(
    st.lists(st.integers(1, 600), max_size=20),
    st.integers(0, len(CONTENT) - 1),
    st.data(),
)
def test_every_byte_arrives_once_however_often_the_connection_breaks(cuts, begin, data):
    end = data.draw(st.integers(begin + 1, len(CONTENT)))
    split = data.draw(st.integers(0, end - begin))
    into = memoryview(bytearray(split)), memoryview(bytearray(end - begin - split))
    counted = []
    source = Breaking(cuts)
    reader = Reader(source)
    reader.stop.wait = lambda seconds: False
    reader.read_into(Piece("f", begin, into), "v1", counted.append)
    assert b"".join(into) == CONTENT[begin:end]
    assert sum(counted) == end - begin
    assert all(part[1] == end for part in source.asked)
    assert [part[0] for part in source.asked] == sorted({part[0] for part in source.asked})


@given(st.lists(st.integers(1, 600), max_size=20))
def test_a_whole_file_goes_on_where_it_broke(cuts):
    source = Breaking(cuts)
    reader = Reader(source)
    reader.stop.wait = lambda seconds: False
    assert reader.whole("f", len(CONTENT)) == CONTENT


def test_only_tries_that_bring_nothing_count_and_waits_double(waits):
    brings = [None, None, 5, None, None, None, None]
    reader = Reader(Breaking(brings))
    assert reader.part(RemoteFile("f", len(CONTENT), "v1"), 0, 100) == CONTENT[:100]
    assert len(waits) == len(brings)
    upper = [1, 2, 1, 2, 4, 8, 16]
    assert all(most / 2 <= wait <= most for most, wait in zip(upper, waits, strict=True)), (
        f"waits {waits}"
    )


def test_a_source_that_never_answers_is_given_up(waits):
    reader = Reader(Breaking([None] * 100))
    with pytest.raises(SourceError, match=r"s3://bucket/model: f cannot be read: busy, 6 times"):
        reader.whole("f", 10)


def test_what_ends_before_it_is_full_is_no_tensor(waits):
    with pytest.raises(SourceError, match="removed or cut off"):
        Reader(Breaking()).part(RemoteFile("f", 10**6, "v1"), len(CONTENT) - 10, len(CONTENT) + 10)
    with pytest.raises(SourceError, match="removed or cut off"):
        Reader(Breaking()).part(RemoteFile("g", 10**6, "v1"), 0, 10)


def test_a_file_that_is_too_long_is_not_read_to_its_end():
    source = Breaking(content=bytes(1 << 20), chunk=100)
    with pytest.raises(SourceError, match="f has more than 0 MiB"):
        Reader(source).whole("f", 500)
    assert Reader(Breaking()).whole("f", len(CONTENT)) == CONTENT
    assert Reader(Breaking()).whole("g", 10) is None


def test_whoever_gives_up_waits_no_longer():
    reader = Reader(Breaking([None]))
    reader.stop.set()
    with pytest.raises(SourceError, match="was given up"):
        reader.whole("f", 10)


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [("hf://a/b/c", "write hf://owner/model"), ("s3://B/x", "write s3://bucket/folder")],
)
def test_an_address_that_is_none_is_refused(uri, sentence):
    assert is_remote(uri)
    with pytest.raises(SourceError, match=sentence):
        open_source(uri)
