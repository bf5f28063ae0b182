"""Where `stageline up` shows itself: a table that lives on a terminal, lines anywhere else."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stageline_api.quantity import format_bytes
from stageline_local.view import Row, View

_STYLES = {
    "serving": "green",
    "ready": "green",
    "loaded": "cyan",
    "loading": "yellow",
    "failed": "red",
    "restarting": "red",
}
_HEADINGS = (
    "pipeline", "stage", "layers", "state", "loaded", "batches", "compute", "hop", "transport",
    "restarts", "message",
)  # fmt: skip
_PROGRESS = re.compile(r"(: )?[\d.]+( \w+)? of [\d.]+ \w+")
_LEFT = frozenset({"pipeline", "stage", "layers", "state", "transport", "message"})


class Screen(Protocol):
    """Shows views, and lines between them. Any call may raise OSError when nobody reads."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, view: View) -> None:
        """Show this moment."""
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

    def show(self, view: View) -> None:
        """Draw the table again."""
        self._live.update(table(view), refresh=True)

    def say(self, line: str) -> None:
        """Print the line above the table."""
        self._live.console.print(line, markup=False, highlight=False)


class Lines:
    """One line when a stage or a pipeline has changed in what matters, none for mere progress."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, view: View) -> None:
        """Print what is new."""
        for key, line in lines(view):
            what = _PROGRESS.sub("", line)
            if self._last.get(key) != what:
                self._last[key] = what
                self.say(line)

    def say(self, line: str) -> None:
        """Print the line."""
        typer.echo(line)


def lines(view: View) -> Iterator[tuple[str, str]]:
    """A line for each process and pipeline, with the key under which it replaces an older one."""
    for row in view.rows:
        where = f"{row.pipeline} stage {row.stage}" if row.pipeline else row.stage
        facts = [f"layers {row.layers}" if row.layers else "", row.state]
        if row.state not in ("starting", "loading") and row.total_bytes:
            facts.append(_loaded(row))
        facts += [row.transport, f"restarts {row.restarts}" if row.restarts else "", row.message]
        yield row.process, "  ".join((where, *filter(None, facts)))
    for pipeline in view.pipelines:
        line = "  ".join(filter(None, (pipeline.name, pipeline.state, pipeline.message)))
        yield f"pipeline {pipeline.name}", line


def table(view: View) -> Table:
    """One row a process, one caption line a pipeline that is not ready."""
    waiting = [
        line.message if line.name in line.message else f"{line.name}: {line.message}"
        for line in view.pipelines
        if line.state != "ready" and line.message
    ]
    made = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        caption=Text("\n".join(waiting)) if waiting else None,
        caption_justify="left",
    )
    for heading in _HEADINGS:
        made.add_column(
            heading,
            justify="left" if heading in _LEFT else "right",
            no_wrap=heading != "message",
            overflow="fold",
        )
    for row in view.rows:
        made.add_row(*_cells(row))
    return made


def _cells(row: Row) -> tuple[Text | str, ...]:
    return (
        row.pipeline,
        row.stage,
        row.layers,
        Text(row.state, style=_STYLES.get(row.state, "")),
        _loaded(row) if row.total_bytes else "",
        str(row.microbatches) if row.total_bytes else "",
        _milliseconds(row.compute_seconds),
        _milliseconds(row.hop_seconds),
        row.transport,
        str(row.restarts),
        Text(row.message, style="red"),
    )


def _loaded(row: Row) -> str:
    if row.loaded_bytes == row.total_bytes:
        return format_bytes(row.total_bytes)
    return f"{format_bytes(row.loaded_bytes)} of {format_bytes(row.total_bytes)}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds else ""
