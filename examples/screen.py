"""What the demo prints: headings, lines, and text as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

WIDTH = 90
MARGIN = "   "


def say(heading: str) -> None:
    """A line of its own, behind an empty one."""
    print(f"\n{heading}")


def show(lines: Iterable[str]) -> None:
    """Lines of what a command printed."""
    for line in lines:
        print(f"   {line}".rstrip())


class Flow:
    """Shows text as it comes, word by word, in lines of at most WIDTH columns."""

    def __init__(self) -> None:
        self._column = 0
        self._gap = ""  # behind the last word shown
        self._word = ""

    def add(self, piece: str) -> None:
        """Show the words that are whole now."""
        for letter in piece:
            if not letter.isspace():
                self._word += letter
                continue
            self._show()
            if letter == "\n":
                self._end_line()
            else:
                self._gap += letter

    def shown(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces, each shown as it comes."""
        for piece in pieces:
            self.add(piece)
            yield piece

    def end(self) -> None:
        """Show the rest."""
        self._show()
        self._end_line()

    def _show(self) -> None:
        if self._column + len(self._gap + self._word) > WIDTH:
            self._end_line()
        if self._word:
            text = self._gap + self._word if self._column else self._word
            print(text if self._column else MARGIN + text, end="", flush=True)
            self._column += len(text)
            self._gap = self._word = ""

    def _end_line(self) -> None:
        print(flush=True)
        self._column = 0
        self._gap = ""
