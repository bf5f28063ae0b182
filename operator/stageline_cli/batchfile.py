"""The two files of a batch: requests, one JSON object a line, and results, the same.

Results are in the order in which they came. A line of them is whole and on the disk before it
counts, and what a kill has torn is cut off: so whoever goes on knows exactly what is done.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from stageline_cli.failure import Failure

Id = int | str
Object = dict[str, Any]
_PROMPTS = ("prompt", "messages")


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of the input; `wrong` says why it cannot be sent."""

    id: Id
    prompt: str | None = None
    messages: list[Any] | None = None
    options: Object = field(default_factory=dict)
    wrong: str = ""


def read_line(number: int, line: bytes) -> Asked:
    """What line `number` (from 1) asks for; without an `id` of its own that is its id."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Asked(number, wrong=f"line {number} is no JSON: {error}")
    if not isinstance(found, dict):
        return Asked(number, wrong=f"line {number} is no JSON object")
    own = found.pop("id", number)
    if isinstance(own, bool) or not isinstance(own, int | str):
        return Asked(number, wrong=f"the id of line {number} is neither text nor a whole number")
    given = {name: found.pop(name) for name in _PROMPTS if name in found}
    if len(given) != 1:
        has = "both prompt and messages" if given else "neither prompt nor messages"
        return Asked(own, wrong=f"line {number} has {has}: one of them is needed")
    prompt, messages = given.get("prompt"), given.get("messages")
    if "prompt" in given and not isinstance(prompt, str):
        return Asked(own, wrong=f"the prompt of line {number} is no text")
    if "messages" in given and not isinstance(messages, list):
        return Asked(own, wrong=f"the messages of line {number} are no list")
    return Asked(own, prompt, messages, found)


def read_requests(path: Path) -> Iterator[Asked]:
    """Every request in the file; empty lines are none. Failure when it cannot be read."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield read_line(number, line)
    except OSError as error:
        raise Failure(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None


def check_ids(path: Path) -> set[Id]:
    """The ids of all requests. Failure when two have the same: one result would stand for both."""
    ids: set[Id] = set()
    for asked in read_requests(path):
        if asked.id in ids:
            raise Failure(
                f"the id {asked.id!r} is in {path} twice: results are told apart by their ids"
            )
        ids.add(asked.id)
    return ids


class Results:
    """The file of results, for this process alone. Use as a context."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self.done: set[Id] = set()
        self.failed = 0

    def __enter__(self) -> Results:
        """Failure when it is in use, or no file of results."""
        try:
            file = self._path.open("a+b")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Failure(f"{self._path} cannot be written: {reason}") from None
        self._file = file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise Failure(f"another command writes {self._path}: wait for its end") from None
        try:
            self._read(file)
        except BaseException:
            file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()

    def write(self, results: list[Object]) -> None:
        """Append these; they are on the disk when this returns."""
        assert self._file is not None
        lines = [json.dumps(result, ensure_ascii=False).encode() + b"\n" for result in results]
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        for result in results:
            self._count(result)

    def _read(self, file: IO[bytes]) -> None:
        file.seek(0)
        whole = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            self._count(self._result(number, line))
            whole += len(line)
        file.truncate(whole)

    def _result(self, number: int, line: bytes) -> Object:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("id"), int | str):
            raise Failure(
                f"line {number} of {self._path} is no result of a batch: name another file"
            )
        return found

    def _count(self, result: Object) -> None:
        self.done.add(result["id"])
        self.failed += "error" in result
