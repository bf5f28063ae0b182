"""One pipeline as the router sees it: a stream of work and a stream of reports, redialled.

Everything of all requests passes over one Serve stream; answers are told apart by the id that this
module gives each request. The tokens of one step are one frame, and are handed on in one go: no
task is woken for a token. When the stream breaks, whatever was on it ends here with a sentence;
whether another pipeline goes on with it is for `pipelines` to say.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio
from grpc.aio import Channel

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_router.errors import BY_CODE, Broken, Elsewhere, Exhausted, Refusal, Unavailable
from stageline_wire import Frame, FrameError, Kind, TensorView, decode, encode
from stageline_wire.credentials import CredentialsError
from stageline_wire.logs import log

_REDIAL = 0.2  # seconds between two tries; the channel itself backs off
_DIAL = 60.0  # seconds; the next channel has the certificate of then
_LEAVE = 60.0  # seconds
_SILENCE = 10.0  # seconds; a leader reports each second

_BUG = "the router failed on this text, which is a bug in Stageline: its log says where"

Logprobs = Sequence[Any]
"""[logprob, [[id, logprob], ...]]: of the drawn token, then the likeliest in order."""


class Listener(Protocol):
    """Who waits for the tokens of a generation; called in the router's loop. May raise Refusal."""

    def take(self, token: int, finish: str | None, logprobs: Logprobs | None) -> bool:
        """One more token, the last one with its reason; whether more are wanted."""
        ...

    def flush(self) -> None:
        """All that this step brought has been taken."""
        ...


@dataclass(frozen=True, slots=True)
class _Generation:
    listener: Listener
    done: asyncio.Future[None]


class Leader:
    """Client of one pipeline's leader. `changed` is called when `ready` or `report` may differ."""

    def __init__(
        self, name: str, address: str, changed: Callable[[], None], dial: Callable[[], Channel]
    ) -> None:
        self.name = name
        self.address = address
        self._dial = dial
        self.report = pb.PipelineReport()
        self.info: pb.ModelInfo | None = None
        self._changed = changed
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[tuple[TensorView, ...]]] = {}
        self._generations: dict[int, _Generation] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._stream: Any = None  # the call, while it stands
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._undialled = ""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """A canary has gone round the ring, and its leader can be reached."""
        return self._stream is not None and self.report.state == pb.READY

    @property
    def in_flight(self) -> int:
        """Requests and microbatches that this router waits for."""
        return len(self._answers) + len(self._generations)

    @property
    def why_not_ready(self) -> str:
        """A sentence for those who wait."""
        if self._stream is None:
            return f"the leader of {self.name} cannot be reached at {self.address}{self._undialled}"
        return self.report.message or f"{self.name} is not ready"

    def start(self) -> None:
        """Dial, and keep dialling until `stop`."""
        self._tasks = [
            asyncio.create_task(self._again(self._watch), name=f"watch-{self.name}"),
            asyncio.create_task(self._again(self._serve), name=f"serve-{self.name}"),
        ]

    async def leave(self) -> None:
        """Finish what is asked, within a minute, then hang up."""
        try:
            async with asyncio.timeout(_LEAVE):
                await self._idle.wait()
        except TimeoutError:
            log("leader_left_early", pipeline=self.name, in_flight=self.in_flight)
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Hang up; whatever is still asked ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lost(Unavailable(f"{self.name} is no longer served by this router"))

    async def infer(
        self, tensors: tuple[TensorView, ...], outputs: Sequence[str] | None
    ) -> tuple[TensorView, ...]:
        """One microbatch there and back. Raises Refusal; cancelling takes it out of the ring."""
        request = next(self._ids)
        answer: asyncio.Future[tuple[TensorView, ...]] = asyncio.get_running_loop().create_future()
        meta = {"id": request, "outputs": None if outputs is None else list(outputs)}
        self._send(Frame(Kind.INFER, meta=meta, tensors=tensors))
        self._answers[request] = answer
        self._idle.clear()
        try:
            return await answer
        except asyncio.CancelledError:
            self._cancel(request)
            raise
        finally:
            self._answers.pop(request, None)
            self._ended()

    async def generate(
        self, tokens: TensorView, options: Mapping[str, object], listener: Listener
    ) -> None:
        """Return when the text is at its end, or the listener has enough.

        `tokens` is input_ids, INT64 [tokens]. Raises Refusal. Cancelling stops the work.
        """
        request = next(self._ids)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send(Frame(Kind.GENERATE, meta={"id": request, **options}, tensors=(tokens,)))
        self._generations[request] = _Generation(listener, done)
        self._idle.clear()
        try:
            await done
        except asyncio.CancelledError:
            self._cancel(request)
            raise
        finally:
            self._generations.pop(request, None)
            self._ended()

    def _ended(self) -> None:
        if not self.in_flight:
            self._idle.set()

    def _send(self, frame: Frame) -> None:
        if self._stream is None:
            raise Elsewhere(self.why_not_ready)
        self._outgoing.put_nowait(b"".join(encode(frame)))

    def _cancel(self, *requests: int) -> None:
        with suppress(Unavailable):  # a leader that is gone has forgotten them already
            self._send(Frame(Kind.CANCEL, meta={"ids": list(requests)}))

    async def _again(self, stream: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await stream()
            except (grpc.aio.AioRpcError, TimeoutError):
                pass  # it is not there; it comes, or another takes its place
            except CredentialsError as error:
                self._undialled = f": {error}"
            except Exception as error:  # whatever it sent, the next dial may find it sound
                log("leader_failed", pipeline=self.name, error=repr(error))
            self._changed()
            await asyncio.sleep(_REDIAL)

    async def _watch(self) -> None:
        async with self._connected() as channel:
            await self._watch_over(channel)

    async def _watch_over(self, channel: Channel) -> None:
        watch: Any = services.PipelineStub(channel).Watch
        reports = aiter(watch(pb.WatchRequest(pipeline=self.name)))
        then = f"the leader of {self.name} does not report"
        try:
            self._heard(await anext(reports))
            while True:
                async with asyncio.timeout(_SILENCE):
                    self._heard(await anext(reports))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                then = f"no leader of {self.name} is at {self.address}: {error.details()}"
        except StopAsyncIteration:
            log("leader_left", pipeline=self.name, address=self.address)
        except TimeoutError:
            log("leader_silent", pipeline=self.name, address=self.address)
            # A process that hangs keeps its connections: without this its clients would hang too.
            self._cancel(*self._answers, *self._generations)
            then = f"the leader of {self.name} has reported nothing for {_SILENCE:g} s"
            self._lost(Unavailable(then))
        finally:
            self.report = pb.PipelineReport(message=then)

    def _heard(self, report: pb.PipelineReport) -> None:
        self.report = report
        if report.HasField("info"):
            self.info = report.info
        self._changed()

    async def _serve(self) -> None:
        async with self._connected() as channel:
            await self._serve_over(channel)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Channel]:
        """Each stream has a channel of its own, and with it the certificate of when it began."""
        async with self._dial() as channel:
            self._undialled = ""
            async with asyncio.timeout(_DIAL):
                await channel.channel_ready()
            yield channel

    async def _serve_over(self, channel: Channel) -> None:
        self._outgoing = asyncio.Queue()
        serve: Any = channel.stream_stream("/stageline.v1.Pipeline/Serve")
        call = serve(self._requests(self._outgoing))
        self._stream = call
        self._changed()
        log("leader_connected", pipeline=self.name, address=self.address)
        # A leader that ends the stream has first told the fate of all that it had taken.
        why: Refusal = Elsewhere(f"the leader of {self.name} closed its stream")
        try:
            async for message in call:
                self._take(decode(message))
        except grpc.aio.AioRpcError as error:
            why = Unavailable(
                f"the leader of {self.name} at {self.address} is gone: {error.details()}"
            )
        except FrameError as error:
            why = Unavailable(f"the leader of {self.name} sent a bad frame: {error}")
        finally:
            call.cancel()
            self._stream = None
            self._lost(why)

    async def _requests(self, outgoing: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
        while True:
            yield await outgoing.get()

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.TOKENS:
                self._step(frame.meta["tokens"])
            case Kind.ANSWER:
                answer = self._answers.get(frame.meta["id"])
                if answer is not None and not answer.done():
                    answer.set_result(frame.tensors)
            case Kind.FAILURE:
                self._failed(frame.meta)
            case _:
                raise FrameError(f"a {frame.kind.name} frame does not come from a leader")

    def _step(self, tokens: Iterable[Sequence[Any]]) -> None:
        heard = []
        for request, token, finish, *logprobs in tokens:
            generation = self._generations.get(request)
            if generation is not None and not generation.done.done():
                self._hear(request, generation, token, finish, *logprobs)
                heard.append((request, generation))
        for request, generation in heard:
            try:
                generation.listener.flush()
            except Exception as error:
                self._give_up(request, error)

    def _hear(
        self,
        request: int,
        generation: _Generation,
        token: int,
        finish: str | None,
        logprobs: Logprobs | None = None,
    ) -> None:
        try:
            wanted = generation.listener.take(token, finish, logprobs)
        except Exception as error:
            self._give_up(request, error)
            return
        if finish is None and wanted:
            return
        if finish is None:
            self._cancel(request)
        generation.done.set_result(None)

    def _give_up(self, request: int, error: Exception) -> None:
        """What a listener raises must not end the stream of the others."""
        if not isinstance(error, Refusal):
            log("text_failed", pipeline=self.name, error=repr(error))
            error = Broken(_BUG)
        self._cancel(request)
        self._fail(request, error)

    def _failed(self, meta: Mapping[str, Any]) -> None:
        message = meta["message"]
        if meta.get("elsewhere"):
            # Its report of that is on the way; until then nothing more is for it.
            self.report = pb.PipelineReport(message=message)
            self._changed()
            self._fail(meta["id"], Elsewhere(message))
        elif (kind := BY_CODE.get(meta["code"], Broken)) is Exhausted:
            self._fail(meta["id"], Exhausted(message, meta.get("retry_after") or 1.0))
        else:
            self._fail(meta["id"], kind(message))

    def _fail(self, request: int, refusal: Refusal) -> None:
        if (answer := self._answers.get(request)) is not None and not answer.done():
            answer.set_exception(refusal)
        if (text := self._generations.get(request)) is not None and not text.done.done():
            text.done.set_exception(refusal)

    def _lost(self, why: Refusal) -> None:
        if self.in_flight:
            log("leader_lost", pipeline=self.name, in_flight=self.in_flight, reason=why)
        for request in [*self._answers, *self._generations]:
            self._fail(request, why)
