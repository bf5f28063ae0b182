"""`stageline batch`: many prompts from a file, their texts into another."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stageline_cli.dialling import DEFAULT_ADDRESS, Address, Ca, Server, TokenFile
from stageline_cli.failure import Failure
from stageline_cli.infer import Model, Timeout

if TYPE_CHECKING:
    from stageline_cli.batchfile import Id, Results

_INTERRUPTED = 130
_End = Failure | asyncio.CancelledError | None


def batch(
    requests: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Requests, one a line.")],
    results: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Results, one a line.")],
    file: Annotated[
        Path | None,
        typer.Option(help="Serve the model of this manifest here meanwhile, as `up` would."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Requests that are under way at once.",
            show_default="a fourth more than the server makes texts at once",
        ),
    ] = None,
    model: Model = None,
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    token_file: TokenFile = None,
    timeout: Timeout = None,
    state_dir: Annotated[
        Path, typer.Option(help="With --file: folder for documents and logs, as of `up`.")
    ] = Path(".stageline"),
) -> None:
    """Generate a text for each line of a file.

    A line of IN.jsonl is a JSON object with "prompt", or "messages" for a chat, an "id" where the
    line's number shall not be it, and any option of text generation. A line of OUT.jsonl has that
    id, and the text with its finish_reason and counts of tokens, or an error; they are in the
    order in which they came.

    Whatever ends it, kill -9 included, the same command goes on where it was: no line is lost, and
    none is there twice. Ctrl-C ends it in order. Exit code 1 says that some lines have errors.

    \b
    Examples:
      stageline batch prompts.jsonl texts.jsonl
      stageline batch prompts.jsonl texts.jsonl --file llama.yaml
      echo '{"prompt": "The ", "max_tokens": 20, "temperature": 0.8, "seed": 7}' > prompts.jsonl
    """
    from stageline_cli.batchfile import Results, check_ids
    from stageline_cli.batchrun import Batch, progress

    ids = check_ids(requests)
    if results.exists() and requests.samefile(results):
        raise Failure(f"{results} is the file of requests: name another one for the results")
    with Results(results) as written:
        _check_same(written, ids, requests, results)
        began, before = time.monotonic(), len(written.done)
        with progress(len(ids), before) as told:
            work = Batch(requests, written, concurrency, model, timeout, told)
            if before == len(ids):
                calls: Coroutine[Any, Any, None] = asyncio.sleep(0)
            elif file is None:
                calls = work.run(Server(address, ca, token_file))
            else:
                from stageline_cli.batchlocal import while_served

                calls = while_served(file, state_dir, work.run)
            end = _outcome(calls)
        _tell(end, written, len(ids), f"{work.tokens} tokens in {time.monotonic() - began:.1f} s")
    if written.failed:
        raise typer.Exit(1)


def _tell(end: _End, written: Results, asked: int, made: str) -> None:
    """Say how far it came; Failure or Exit when that is not to the end."""
    so_far = f"{len(written.done)} of {asked} lines done"
    if isinstance(end, Failure):
        raise Failure(f"{end}\n{so_far}, run the same command to go on")
    if end is not None:
        typer.echo(f"{so_far}, run the same command to go on")
        raise typer.Exit(_INTERRUPTED)
    typer.echo(f"{so_far}, {written.failed} of them with an error; this time {made}")


def _check_same(written: Results, ids: set[Id], requests: Path, results: Path) -> None:
    if foreign := written.done - ids:
        raise Failure(
            f"{results} has a result of {min(map(str, foreign))}, which {requests} does not ask "
            "for: it is of another batch, name another file"
        )


def _outcome(calls: Coroutine[Any, Any, None]) -> _End:
    """How the calls ended: None is well, CancelledError that somebody wanted no more."""

    async def until_stopped() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        await calls

    try:
        asyncio.run(until_stopped())
    except (Failure, asyncio.CancelledError) as end:
        return end
    return None
