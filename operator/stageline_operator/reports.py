"""What pipelines say of themselves: one stream to the leader of each, and nobody is polled.

A stream waits in gRPC's own core until its leader is there, which costs nothing, so 1,000 of them
are as good as one. A leader that falls silent has no report.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import grpc

from stageline.v1 import pipeline_pb2 as pb
from stageline.v1.pipeline_pb2_grpc import PipelineStub
from stageline_operator.cache import Key
from stageline_operator.kinds import CONTROLLER_REVISION, POD
from stageline_operator.names import pipeline_name, pod_key
from stageline_operator.names import revision as revision_name
from stageline_operator.observed import Observed, PipelineKey, PipelineReport, StageReport
from stageline_operator.silence import disagreement
from stageline_operator.status import DETAILS_APART
from stageline_wire.credentials import CHANNEL_OPTIONS

log = logging.getLogger(__name__)
_T = TypeVar("_T")

PORT: Final = 7070
"""Of every worker."""
NUMBERS_SECONDS: Final = DETAILS_APART.total_seconds()
"""Mere numbers are news as often as they may be written: a look in between would be for nothing."""
INTRODUCTION_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = (0.1, 2.0)
_DIAL_SECONDS: Final = 3600.0
ASK_WHY_SECONDS: Final = 10.0
"""After which gRPC is asked why a leader cannot be reached; then twice as long each time, until:"""
_SELDOM_SECONDS: Final = 80.0
_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A node that is lost says nothing: only pings tell.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # What a channel keeps for retries and for its own history is a fifth of its memory.
    ("grpc.enable_retries", 0),
    ("grpc.enable_channelz", 0),
    ("grpc.max_channel_trace_event_memory_per_node", 0),
)
_STAGE_STATES: Final = {
    pb.STARTING: "Starting",
    pb.LOADING: "Loading",
    pb.LOADED: "Loaded",
    pb.SERVING: "Serving",
    pb.DRAINING: "Draining",
    pb.FAILED: "Failed",
}
_PIPELINE_STATES: Final = {
    pb.WAITING: "Waiting",
    pb.CONNECTING: "Connecting",
    pb.READY: "Ready",
    pb.PIPELINE_DRAINING: "Draining",
}


@dataclass(frozen=True, slots=True)
class Leader:
    """Whom to ask, and who it should be."""

    address: str
    pipeline: str
    revision: str
    tls: bool = False
    """Whether it asks for a certificate."""


def leaders(observed: Observed) -> dict[PipelineKey, Leader]:
    """The leaders of a resource's pipelines: the pods of stage 0 that run and have an address."""
    found = {}
    owner = observed.resource["metadata"]["name"]
    for pod in observed.of(POD).values():
        key, status = pod_key(pod), pod.get("status") or {}
        if key is None or key.stage != 0 or not status.get("podIP"):
            continue
        if status.get("phase") in ("Succeeded", "Failed"):
            continue
        name = pipeline_name(owner, key.pipeline)
        asks = _asks_for_certificates(observed, owner, key.revision)
        found[key.pipeline] = Leader(_address(status["podIP"]), name, key.revision, asks)
    return found


def _asks_for_certificates(observed: Observed, owner: str, revision: str) -> bool:
    record = observed.of(CONTROLLER_REVISION).get(revision_name(owner, revision)) or {}
    return bool((record.get("data") or {}).get("tls"))


def reduced(report: Any) -> PipelineReport:
    """What decisions need of a stageline.v1.PipelineReport. KeyError for a state unknown to us."""
    return PipelineReport(
        pipeline=report.pipeline,
        revision=report.revision,
        state=_PIPELINE_STATES[report.state],  # type: ignore[arg-type]
        message=report.message,
        sessions=report.sessions,
        stages=tuple(map(_stage, report.stages)),
    )


def essence(report: PipelineReport | None) -> PipelineReport | None:
    """The report without the numbers that change while nothing happens."""
    if report is None:
        return None
    stages = tuple(
        replace(stage, compute_seconds=0.0, hop_seconds=0.0, loaded_bytes=0)
        for stage in report.stages
    )
    return replace(report, stages=stages)


@dataclass(frozen=True, slots=True)
class _Stream:
    leader: Leader
    task: asyncio.Task[None]


class Reports:
    """The newest report of every pipeline whose leader is heard."""

    def __init__(
        self,
        changed: Callable[[Key, float], None],
        port: int = PORT,
        credentials: Callable[[Key], grpc.ChannelCredentials | None] = lambda key: None,
    ) -> None:
        self._changed = changed
        self._port = port
        self._credentials = credentials
        self._streams: dict[Key, dict[PipelineKey, _Stream]] = {}
        self._newest: dict[Key, dict[PipelineKey, PipelineReport]] = {}
        self._silences: dict[Key, dict[PipelineKey, str]] = {}

    def of(self, key: Key) -> Mapping[PipelineKey, PipelineReport]:
        """What is known now of the pipelines of a resource."""
        return dict(self._newest.get(key, {}))

    def silences(self, key: Key) -> Mapping[PipelineKey, str]:
        """Why leaders of a resource are not heard, in a sentence, where that is known."""
        return dict(self._silences.get(key, {}))

    def follow(self, key: Key, wanted: Mapping[PipelineKey, Leader]) -> None:
        """Listen to these leaders of a resource, and to no other of it."""
        mine = self._streams.pop(key, {})
        for pipeline, stream in mine.items():
            if wanted.get(pipeline) != stream.leader:
                stream.task.cancel()
                self._keep(key, pipeline, None)
        kept = {pipeline: s for pipeline, s in mine.items() if wanted.get(pipeline) == s.leader}
        for pipeline, leader in wanted.items():
            if pipeline not in kept:
                task = asyncio.create_task(self._listen(key, pipeline, leader), name="reports")
                kept[pipeline] = _Stream(leader, task)
        if kept:
            self._streams[key] = kept

    @property
    def heard(self) -> int:
        """Pipelines whose leader is heard now."""
        return sum(map(len, self._newest.values()))

    async def stop(self) -> None:
        """Close every stream."""
        tasks = [stream.task for mine in self._streams.values() for stream in mine.values()]
        for key in list(self._streams):
            self.follow(key, {})
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, key: Key, pipeline: PipelineKey, leader: Leader) -> None:
        request = pb.WatchRequest(pipeline=leader.pipeline, revision=leader.revision)
        wait = _AGAIN_SECONDS[0]
        while True:
            if (channel := self._channel(key, leader)) is None:
                await asyncio.sleep(_AGAIN_SECONDS[1])
                continue
            why = ""
            async with channel:
                try:
                    async with asyncio.timeout(_DIAL_SECONDS):
                        why = await _opened(channel, request, tls=leader.tls)
                    if not why:
                        async for told in PipelineStub(channel).Watch(request):
                            self._hear(key, pipeline, leader, told)
                            wait = _AGAIN_SECONDS[0]
                except TimeoutError:
                    pass  # the next channel has a certificate that has not run out meanwhile
                except grpc.aio.AioRpcError as error:
                    # It died, drains, starts, or is somebody else's by now: all of these pass.
                    log.debug("%s: %s", leader.pipeline, error.details(), extra={"key": str(key)})
            self._tell(key, pipeline, None)
            self._explain(key, pipeline, why)
            await asyncio.sleep(wait * (0.5 + random.random() / 2))
            wait = min(_AGAIN_SECONDS[1], 2 * wait)

    def _channel(self, key: Key, leader: Leader) -> grpc.aio.Channel | None:
        """None where it asks for a certificate, and there is none to show yet."""
        address = f"{leader.address}:{self._port}"
        if not leader.tls:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        if (credentials := self._credentials(key)) is None:
            return None
        options = (*_OPTIONS, *CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(address, credentials, options=options)

    def _hear(self, key: Key, pipeline: PipelineKey, leader: Leader, told: Any) -> None:
        """A report of another pipeline, or one that we cannot read, is as good as silence."""
        mine = (told.pipeline, told.revision) == (leader.pipeline, leader.revision)
        readable = told.state in _PIPELINE_STATES and all(
            stage.state in _STAGE_STATES for stage in told.stages
        )
        self._tell(key, pipeline, reduced(told) if mine and readable else None)

    def _tell(self, key: Key, pipeline: PipelineKey, report: PipelineReport | None) -> None:
        before = self._newest.get(key, {}).get(pipeline)
        if report == before:
            return
        self._keep(key, pipeline, report)
        self._changed(key, NUMBERS_SECONDS if essence(report) == essence(before) else 0.0)

    def _explain(self, key: Key, pipeline: PipelineKey, why: str) -> None:
        if why != self._silences.get(key, {}).get(pipeline, ""):
            _set(self._silences, key, pipeline, why or None)
            self._changed(key, 0.0)

    def _keep(self, key: Key, pipeline: PipelineKey, report: PipelineReport | None) -> None:
        _set(self._newest, key, pipeline, report)
        _set(self._silences, key, pipeline, None)


class Introductions:
    """Patience with what this process has not met yet. Pure: times are passed in.

    An operator that has just started has heard no leader, which is no news of theirs: it gives each
    resource's leaders a moment to speak before it first judges them.
    """

    def __init__(self) -> None:
        self._until: dict[Key, float] = {}

    def wait(self, key: Key, unheard: Collection[PipelineKey], now: float) -> float:
        """Seconds to wait before judging; 0: judge now."""
        until = self._until.setdefault(key, now + INTRODUCTION_SECONDS)
        if unheard and now < until:
            return until - now
        self._until[key] = now
        return 0.0

    def forget(self, key: Key) -> None:
        """The resource is gone; another of its name is a stranger."""
        self._until.pop(key, None)


async def _opened(channel: grpc.aio.Channel, request: pb.WatchRequest, *, tls: bool) -> str:
    """Come back when the leader answers, or with the sentence why it never will."""
    patience = ASK_WHY_SECONDS
    while True:
        try:
            async with asyncio.timeout(patience):
                await channel.channel_ready()
            return ""
        except TimeoutError:
            patience = min(2 * patience, _SELDOM_SECONDS)
        try:
            async for _ in PipelineStub(channel).Watch(request, timeout=ASK_WHY_SECONDS):
                return ""
        except grpc.aio.AioRpcError as error:
            if why := disagreement(error.details() or "", tls=tls):
                return why


def _set(
    kept: dict[Key, dict[PipelineKey, _T]], key: Key, pipeline: PipelineKey, value: _T | None
) -> None:
    """Keep what is known of a pipeline, or nothing of it."""
    if value is not None:
        kept.setdefault(key, {})[pipeline] = value
        return
    mine = kept.get(key, {})
    mine.pop(pipeline, None)
    if not mine:
        kept.pop(key, None)


def _stage(report: Any) -> StageReport:
    return StageReport(
        stage=report.stage,
        state=_STAGE_STATES[report.state],  # type: ignore[arg-type]
        first_layer=report.first_layer,
        end_layer=report.end_layer,
        loaded_bytes=report.loaded_bytes,
        total_bytes=report.total_bytes,
        loads=report.loads,
        transport=report.transport,
        transport_note=report.transport_note,
        compute_seconds=report.compute_seconds,
        hop_seconds=report.hop_seconds,
        error=report.error,
    )


def _address(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
