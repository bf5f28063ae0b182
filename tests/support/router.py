"""A router reduced to its Serve stream: sends work to a leader, keeps what comes back."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

import grpc
import torch
from torch import Tensor

from stageline_wire import Frame, Kind, decode, encode
from stageline_wire.credentials import Credentials
from stageline_worker.channel import open_channel
from stageline_worker.tensors import from_view, to_view

_SECONDS = 30.0


class Failed(Exception):
    """The leader answered with a FAILURE: code and message."""

    def __init__(self, meta: Mapping[str, Any]) -> None:
        super().__init__(f"{meta['code']}: {meta['message']}")
        self.code: str = meta["code"]
        self.message: str = meta["message"]
        self.elsewhere: bool = meta["elsewhere"]
        self.retry_after: float | None = meta.get("retry_after")


class Router:
    """One Serve stream. Ids are the caller's; answers are waited for with a deadline."""

    def __init__(self, leader: str, credentials: Credentials | None = None) -> None:
        self._outgoing: SimpleQueue[bytes | None] = SimpleQueue()
        self._changed = threading.Condition()
        self.frames: list[Frame] = []
        self.tokens: dict[object, list[int]] = defaultdict(list)
        self.finish: dict[object, str] = {}
        self.answers: dict[object, dict[str, Tensor]] = {}
        self.failures: dict[object, Failed] = {}
        self.ended: grpc.RpcError | None = None
        self._channel = open_channel(leader, credentials)
        stream = self._channel.stream_stream("/stageline.v1.Pipeline/Serve")
        self.call = stream(iter(self._outgoing.get, None), wait_for_ready=True)
        self._reader = threading.Thread(target=self._read, name="test-router")
        self._reader.start()

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._outgoing.put(None)
        self.call.cancel()
        self._channel.close()
        self._reader.join()

    def send(self, frame: Frame) -> None:
        self.send_bytes(b"".join(encode(frame)))

    def send_bytes(self, message: bytes) -> None:
        self._outgoing.put(message)

    def infer(self, request, tensors: Mapping[str, Tensor], outputs=None) -> None:
        views = tuple(to_view(name, tensor) for name, tensor in tensors.items())
        self.send(Frame(Kind.INFER, meta={"id": request, "outputs": outputs}, tensors=views))

    def generate(self, request, prompt: list[int], **meta: object) -> None:
        ids = to_view("input_ids", torch.tensor(prompt, dtype=torch.int64))
        self.send(Frame(Kind.GENERATE, meta={"id": request, **meta}, tensors=(ids,)))

    def cancel(self, *requests: object) -> None:
        self.send(Frame(Kind.CANCEL, meta={"ids": list(requests)}))

    def answer_of(self, request, seconds: float = _SECONDS) -> dict[str, Tensor]:
        """The outputs of an INFER; raises Failed."""
        self.wait(lambda: request in self.answers, request, seconds)
        return self.answers[request]

    def tokens_of(self, request, seconds: float = _SECONDS) -> list[int]:
        """All tokens of a GENERATE, once it has finished; raises Failed."""
        self.wait(lambda: request in self.finish, request, seconds)
        return self.tokens[request]

    def entries(self, request) -> list[list]:
        """What TOKENS frames said of a request, as it came."""
        frames = [frame for frame in self.frames if frame.kind is Kind.TOKENS]
        return [entry for frame in frames for entry in frame.meta["tokens"] if entry[0] == request]

    def failure_of(self, request, seconds: float = _SECONDS) -> Failed:
        """The failure that must come."""
        self.wait(lambda: request in self.failures, None, seconds)
        return self.failures[request]

    def wait(self, condition, request=None, seconds: float = _SECONDS) -> None:
        with self._changed:
            done = lambda: condition() or request in self.failures or self.ended  # noqa: E731
            assert self._changed.wait_for(done, seconds), f"{request} had no end in {seconds} s"
            if not condition():
                raise self.failures.get(request) or AssertionError(f"stream ended: {self.ended}")

    def _read(self) -> None:
        try:
            for message in self.call:
                with self._changed:
                    self._take(decode(message))
                    self._changed.notify_all()
        except grpc.RpcError as error:
            ended = error
        else:
            ended = grpc.RpcError("the leader closed the stream")
        with self._changed:
            self.ended = ended
            self._changed.notify_all()

    def _take(self, frame: Frame) -> None:
        self.frames.append(frame)
        meta = frame.meta
        match frame.kind:
            case Kind.TOKENS:
                for request, token, finish, *_ in meta["tokens"]:
                    self.tokens[request].append(token)
                    if finish:
                        self.finish[request] = finish
            case Kind.ANSWER:
                self.answers[meta["id"]] = {v.name: from_view(v) for v in frame.tensors}
            case Kind.FAILURE:
                self.failures[meta["id"]] = Failed(meta)
