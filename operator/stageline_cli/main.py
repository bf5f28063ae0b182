"""The command `stageline`, which is `kubectl stageline` too when kubectl finds it.

What a command needs beside the standard library and typer it imports itself, when it runs: help
must come at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from stageline_cli.batch import batch
from stageline_cli.failure import Failure
from stageline_cli.generate import generate
from stageline_cli.infer import infer
from stageline_cli.plan import plan_command
from stageline_cli.status import status
from stageline_cli.trace import trace
from stageline_cli.up import up

app = typer.Typer(
    name="stageline",
    help="Serve a model that does not fit on one accelerator, cut into stages.\n\n"
    "Start with `stageline up FILE`, then `stageline infer` or `stageline generate`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up)
app.command("plan")(plan_command)
app.command()(status)
app.command()(infer)
app.command()(generate)
app.command()(batch)
app.command()(trace)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"stageline {version('stageline')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Serve a model that does not fit on one accelerator, cut into stages.

    Start with `stageline up FILE`, then `stageline infer` or `stageline generate`.
    """


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed with a sentence, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # any text, any terminal
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its core writes to stderr as it pleases
    try:
        app()
    except Failure as failure:
        typer.echo(str(failure), err=True)
        sys.exit(1)
    except Exception:  # the last place before the user: say what to do with it
        traceback.print_exc()
        typer.echo("This is a bug in Stageline; please report the lines above", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
