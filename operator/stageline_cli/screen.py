"""Where `stageline up` shows itself: a table that lives on a terminal, lines anywhere else."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, Protocol, Self

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stageline_cli.summary import (
    STAGE_HEADINGS,
    is_ready,
    news,
    right_aligned,
    stage_rows,
    troubles,
)

Object = dict[str, Any]

_STYLES = {"Serving": "green", "Loaded": "cyan", "Loading": "yellow", "Failed": "red"}
_NARROW = frozenset({"pod", "node"})  # left out: here every pod is a process of this machine
_NAMES = tuple(heading for heading in STAGE_HEADINGS if heading not in _NARROW)


class Screen(Protocol):
    """Shows a resource, and lines between. Any call may raise OSError when nobody reads."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, resource: Object) -> None:
        """Show what it is now."""
        ...

    def say(self, line: str) -> None:
        """Print a line that stays."""
        ...


class Terminal:
    """A table that is drawn again in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="visible")

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # the terminal itself may be gone
            self._live.__exit__(kind, error, trace)

    def show(self, resource: Object) -> None:
        """Draw the table again."""
        self._live.update(picture(resource), refresh=True)

    def say(self, line: str) -> None:
        """Print the line above the table."""
        self._live.console.print(line, markup=False, highlight=False)


class Lines:
    """One line when a condition or a stage has changed in what matters, none for mere progress."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, resource: Object) -> None:
        """Print what is new."""
        for key, line, essence in news(resource):
            if self._last.get(key) != essence:
                self._last[key] = essence
                self.say(line)

    def say(self, line: str) -> None:
        """Print the line."""
        typer.echo(line)


def picture(resource: Object) -> Group:
    """One row a stage, and below it a line for each thing that is not as it should be."""
    style = "green" if is_ready(resource) else "yellow"
    wrong = [Text(line, style=style) for line in troubles(resource)]
    return Group(_table(resource), *wrong)


def _table(resource: Object) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in _NAMES:
        made.add_column(
            heading,
            justify="right" if right_aligned(heading) else "left",
            no_wrap=heading != "message",
            overflow="fold",
        )
    for row in stage_rows(resource):
        cells = dict(zip(STAGE_HEADINGS, row, strict=True))
        made.add_row(*(_styled(name, cells[name]) for name in _NAMES))
    return made


def _styled(heading: str, text: str) -> Text:
    if heading == "state":
        return Text(text, style=_STYLES.get(text, ""))
    return Text(text, style="red" if heading == "message" else "")
