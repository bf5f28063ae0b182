"""Where `stageline up` shows itself: a table that lives on a terminal, lines anywhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from stageline_cli.summary import (
    STAGE_HEADINGS,
    news,
    stage_rows,
    stages,
    table,
    troubles,
)

Object = dict[str, Any]

_STYLES = {"Serving": "green", "Loaded": "cyan", "Loading": "yellow", "Failed": "red"}
_COLUMNS = (
    "pipeline", "stage", "layers", "state", "loaded", "restarts", "compute", "hop", "transport",
    "message",
)  # fmt: skip


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
    """A line for each stage, as far as the terminal is wide, and each thing that is wrong."""
    wrong = [Text(line, style="yellow") for line in troubles(resource)]
    return Group(*(_stage_lines(resource) if stages(resource) else ()), *wrong)


def _stage_lines(resource: Object) -> Iterator[Text]:
    owner = resource["metadata"]["name"]
    rows = [dict(zip(STAGE_HEADINGS, row, strict=True)) for row in stage_rows(resource)]
    for row in rows:
        row["pipeline"] = row["pipeline"].removeprefix(f"{owner}-")
    cells = [tuple(row[name] for name in _COLUMNS) for row in rows]
    heading, *lines = table(_COLUMNS, cells)
    yield _line(heading, "bold")
    for line, row in zip(lines, rows, strict=True):
        yield _line(line, _STYLES.get(row["state"], ""))


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
