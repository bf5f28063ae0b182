"""The requests of a batch, so many at once, to a server and back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stageline_cli.batchfile import Asked, Object, Results, read_requests
from stageline_cli.client import Client, Refused, connect, infer_request
from stageline_cli.dialling import Server
from stageline_cli.failure import Failure
from stageline_cli.tensors import Tensor, from_json, from_texts

_FLAGS = (
    "exclude_input_in_output",
    "return_finish_reason",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
_PATIENCE = 60.0  # seconds in which no line was answered, and the server says that it cannot
_UNTOLD = 64  # requests at once, to a server that does not say how many texts it makes
_PAUSE = 1.0  # seconds between two tries
_TRIES = 3  # of a line that the server cannot answer while it answers others


class Progress(Protocol):
    """Who is told of each line that is done."""

    def advance(self, lines: int, tokens: int) -> None: ...


@contextmanager
def progress(lines: int, done: int) -> Iterator[Progress]:
    """A bar on stderr where somebody looks at it."""
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("lines  {task.fields[tokens]} tokens"),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with rich.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=lines, completed=done, tokens=0)

        class Bar:
            def advance(self, lines: int, tokens: int) -> None:
                so_far = bar.tasks[0].fields["tokens"]
                bar.update(task, advance=lines, tokens=so_far + tokens)

        yield Bar()


@dataclass(slots=True)
class Batch:
    """What is not done yet of a file of requests. `timeout` in seconds is that of one line."""

    requests: Path
    results: Results
    concurrency: int | None  # None: what keeps the server busy
    model: str | None
    timeout: float | None
    told: Progress
    tokens: int = 0
    _pending: list[Object] = field(default_factory=list)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _answered: float = field(default_factory=time.monotonic)

    async def run(self, server: Server) -> None:
        """Return when every line has its result; what has one is kept whatever happens.

        Failure when the server can answer none any more.
        """
        async with connect(server) as client:
            name = await client.the_model(self.model)
            known = {
                tensor.name: len(tensor.shape) for tensor in (await client.metadata(name)).inputs
            }
            if "text_input" not in known:
                raise Failure(f"{name} generates no text: it takes {', '.join(known)}")
            done = frozenset(self.results.done)
            todo = (asked for asked in read_requests(self.requests) if asked.id not in done)
            working = [
                asyncio.create_task(self._work(client, name, known, todo))
                for _ in range(self.concurrency or _enough(await client.sequence_slots(name)))
            ]
            try:
                await asyncio.gather(*working)
            finally:
                for task in working:
                    task.cancel()
                await asyncio.gather(*working, return_exceptions=True)
                await self._write()

    async def _work(
        self, client: Client, model: str, known: Mapping[str, int], todo: Iterator[Asked]
    ) -> None:
        for asked in todo:
            if asked.wrong:
                result: Object = {"id": asked.id, "error": asked.wrong}
            else:
                result = {"id": asked.id, **await self._answer(client, model, known, asked)}
            self._pending.append(result)
            await self._write()

    async def _answer(
        self, client: Client, model: str, known: Mapping[str, int], asked: Asked
    ) -> Object:
        try:
            request = infer_request(model, request_inputs(asked, known))
        except ValueError as error:
            return {"error": f"its options cannot be sent: {error}"}
        tries = 0
        while True:
            began = time.monotonic()
            try:
                answer = result_of(await client.infer(request, self.timeout))
            except Refused as refused:
                if not refused.passing:
                    return {"error": str(refused)}
                tries += not refused.retry_after
                if tries >= _TRIES and self._answered > began:
                    return {"error": str(refused)}
                if not refused.retry_after and time.monotonic() - self._answered > _PATIENCE:
                    raise
                await asyncio.sleep(refused.retry_after or _PAUSE)
            else:
                self._answered = time.monotonic()
                return answer

    async def _write(self) -> None:
        """Put what is pending on the disk, all in one go."""
        async with self._writing:
            results, self._pending = self._pending, []
            if not results:
                return
            writing = asyncio.create_task(asyncio.to_thread(self.results.write, results))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await writing
                raise
            finally:
                tokens = sum(map(_tokens, results))
                self.tokens += tokens
                self.told.advance(len(results), tokens)


def _enough(slots: int | None) -> int:
    """Requests under way that leave no slot empty: a fourth more than texts that are made."""
    return slots + slots // 4 + 1 if slots else _UNTOLD


def request_inputs(asked: Asked, known: Mapping[str, int]) -> list[Tensor]:
    """The inputs of a line, flags as far as the model has them; `known` are ranks by name."""
    if asked.prompt is not None:
        made = [_text("text_input", asked.prompt, known)]
    else:
        made = [_text("messages", json.dumps(asked.messages), known)]
    if asked.options:
        made.append(_text("sampling_parameters", json.dumps(asked.options), known))
    wanted = (flag for flag in _FLAGS if flag in known and flag not in asked.options)
    return made + [from_json(flag, [True], "BOOL") for flag in wanted]


def result_of(answer: list[Tensor]) -> Object:
    """What a response says of its text; of several texts lists. Failure when it has none."""
    given = {tensor.name: tensor.values() for tensor in answer}
    if "text_output" not in given:
        raise Failure(f"the server sent no text_output, only {', '.join(given) or 'nothing'}")
    result = {"text": given.pop("text_output"), **given}
    if "logprobs" in result:
        result["logprobs"] = [json.loads(text) for text in result["logprobs"]]
    one = len(result["text"]) == 1
    return {name: values[0] if one or name == "num_input_tokens" else values
            for name, values in result.items()}  # fmt: skip


def _tokens(result: Object) -> int:
    made = result.get("num_output_tokens", 0)
    return sum(made) if isinstance(made, list) else made


def _text(name: str, text: str, known: Mapping[str, int]) -> Tensor:
    return from_texts(name, [text], (1,) * max(known.get(name, 1), 1))
