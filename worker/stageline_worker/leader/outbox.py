"""What goes back to one router: frames in an order that keeps every request's own order.

All tokens that wait are one frame, so a step costs one message however many requests it carries,
and a router that reads slowly gets fewer, fuller ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from stageline_wire import Frame, Kind
from stageline_worker.leader.requests import Id
from stageline_worker.tensors import to_view

Said = tuple[Id, int, str | None] | tuple[Id, int, str | None, list[Any]]
"""Request, token, why it was the last, and where asked for [logprob, [[id, logprob], ...]]."""


class Outbox:
    """Filled by the ring's thread, emptied by the stream's."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._tokens: list[Said] = []
        self._frames: list[Frame] = []
        self._closed = False

    def tokens(self, tokens: list[Said]) -> None:
        with self._condition:
            self._tokens += tokens
            self._condition.notify()

    def answer(self, request: Id, outputs: dict[str, Tensor]) -> None:
        tensors = tuple(to_view(name, tensor) for name, tensor in outputs.items())
        self._put(Frame(Kind.ANSWER, meta={"id": request}, tensors=tensors))

    def failure(
        self,
        request: Id,
        code: str,
        message: str,
        *,
        elsewhere: bool = False,
        retry_after: float | None = None,
    ) -> None:
        """`elsewhere`: nothing is wrong with the request, another pipeline may serve it.
        `retry_after`: seconds after which this one may."""
        meta: dict[str, Any] = {"id": request, "code": code, "message": message}
        meta["elsewhere"] = elsewhere
        if retry_after is not None:
            meta["retry_after"] = retry_after
        self._put(Frame(Kind.FAILURE, meta=meta))

    def close(self) -> None:
        """Nothing may follow; what is here still goes out."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def frames(self) -> Iterator[Frame]:
        """Every frame until `close`. A request's tokens go before its failure."""
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._tokens or self._frames)
                tokens, self._tokens = self._tokens, []
                frames, self._frames = self._frames, []
                closed = self._closed
            if tokens:
                yield Frame(Kind.TOKENS, meta={"tokens": tokens})
            yield from frames
            if closed and not tokens and not frames:
                return

    def _put(self, frame: Frame) -> None:
        with self._condition:
            self._frames.append(frame)
            self._condition.notify()
