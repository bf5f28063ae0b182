"""The leader's gRPC services: Attach for workers, Serve and Watch for routers and operators."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import grpc

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1 import pipeline_pb2_grpc as services
from stageline_api.documents import StageDocument
from stageline_wire import Frame, FrameError, Kind, decode, encode
from stageline_worker.leader.board import Board
from stageline_worker.leader.coordinator import Coordinator, Mail
from stageline_worker.leader.desk import Desk
from stageline_worker.leader.outbox import Outbox
from stageline_worker.leader.requests import BadRequest
from stageline_worker.transport import Refusals

_PIPELINE = "stageline.v1.Pipeline"


class ControlService(services.ControlServicer):  # type: ignore[misc]
    """One Attach stream for each worker."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def Attach(
        self, request_iterator: Iterator[pb.WorkerMessage], context: grpc.ServicerContext
    ) -> Iterator[pb.LeaderMessage]:
        first = next(request_iterator, pb.WorkerMessage())
        if not first.HasField("report"):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a control stream begins with a report")
        if reason := self._coordinator.objection(first.report):
            self._coordinator.refuse(first.report, reason)
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, reason)
        mail: Mail = SimpleQueue()
        context.add_callback(lambda: mail.put(None))
        yield pb.LeaderMessage()  # the worker knows now that it is attached
        self._coordinator.attach(first.report, mail)
        args = (request_iterator, first.report, mail)
        threading.Thread(target=self._read, args=args, name="attached", daemon=True).start()
        while (message := mail.get()) is not None:
            if isinstance(message, str):
                context.abort(grpc.StatusCode.ALREADY_EXISTS, message)
            yield message

    def _read(self, messages: Iterator[pb.WorkerMessage], who: pb.WorkerReport, mail: Mail) -> None:
        leaving = False
        # gRPC may tell a broken stream as it tells one that has ended: what was said last counts.
        with suppress(grpc.RpcError):
            for message in messages:
                if message.HasField("report"):
                    leaving = message.report.state == pb.DRAINING
                self._take(message, who)
        reason = "it has left" if leaving else "its control stream broke"
        self._coordinator.detach(who.stage, who.incarnation, mail, reason)
        mail.put(None)

    def _take(self, message: pb.WorkerMessage, who: pb.WorkerReport) -> None:
        match message.WhichOneof("message"):
            case "report" if message.report.stage == who.stage:
                self._coordinator.heard(message.report)
            case "ready":
                self._coordinator.ready(who.stage, message.ready.session)
            case "trace":
                self._coordinator.tracing.answered(who.stage, message.trace)
            case "broken":
                broken = message.broken
                self._coordinator.broken(broken.session, broken.stage, broken.reason)


class PipelineService:
    """Watch and Trace with protobuf messages, Serve with raw frames: one handler for all."""

    def __init__(
        self,
        document: StageDocument,
        coordinator: Coordinator,
        desk: Desk,
        board: Board,
        refusals: Refusals,
    ) -> None:
        self._document = document
        self._coordinator = coordinator
        self._desk = desk
        self._board = board
        self._refusals = refusals
        self._outboxes: set[Outbox] = set()

    def close(self) -> None:
        """End every Serve stream, once what waits for its router is out."""
        for outbox in self._outboxes.copy():
            outbox.close()

    def handler(self) -> grpc.GenericRpcHandler:
        watch = grpc.unary_stream_rpc_method_handler(
            self._watch,
            request_deserializer=pb.WatchRequest.FromString,
            response_serializer=pb.PipelineReport.SerializeToString,
        )
        serve: Any = grpc.stream_stream_rpc_method_handler(self._serve)
        trace = grpc.unary_unary_rpc_method_handler(
            self._trace,
            request_deserializer=pb.TraceRequest.FromString,
            response_serializer=pb.PipelineTrace.SerializeToString,
        )
        methods = {"Watch": watch, "Serve": serve, "Trace": trace}
        return grpc.method_handlers_generic_handler(_PIPELINE, methods)

    def _trace(self, request: pb.TraceRequest, context: grpc.ServicerContext) -> pb.PipelineTrace:
        stages = self._coordinator.trace(request.spans)
        return pb.PipelineTrace(pipeline=self._document.pipeline, stages=stages)

    def _watch(
        self, request: pb.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.PipelineReport]:
        mine = self._document
        wanted = (request.pipeline or mine.pipeline, request.revision or mine.revision)
        if wanted != (mine.pipeline, mine.revision):
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this is the leader of {mine.pipeline} of revision {mine.revision}, not of "
                f"{wanted[0]} of revision {wanted[1]}",
            )
        for report in self._board.watch():
            if not context.is_active():
                return
            yield report

    def _serve(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        outbox = Outbox()
        self._outboxes.add(outbox)
        context.add_callback(outbox.close)
        wrong: list[str] = []
        args = (messages, outbox, wrong)
        threading.Thread(target=self._read, args=args, name="router", daemon=True).start()
        for frame in outbox.frames():
            yield b"".join(encode(frame))
        if wrong:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, wrong[0])

    def _read(self, messages: Iterator[bytes], outbox: Outbox, wrong: list[str]) -> None:
        try:
            for message in messages:
                self._take(decode(message), outbox)
        except grpc.RpcError:
            pass  # the router is gone
        except (FrameError, BadRequest) as error:
            self._refusals.add(str(error))
            wrong.append(str(error))
        self._desk.leave(outbox)
        outbox.close()
        self._outboxes.discard(outbox)

    def _take(self, frame: Frame, outbox: Outbox) -> None:
        match frame.kind:
            case Kind.INFER | Kind.GENERATE:
                self._desk.submit(frame, outbox)
            case Kind.CANCEL:
                ids = frame.meta.get("ids")
                if not isinstance(ids, list) or not all(type(i) in (int, str) for i in ids):
                    raise FrameError("a CANCEL frame needs ids, a list of integers or strings")
                self._desk.cancel(ids, outbox)
            case _:
                raise FrameError(f"a {frame.kind.name} frame does not come from a router")
