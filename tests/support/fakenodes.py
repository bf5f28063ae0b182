"""Nodes without kubelets: pods become what a test says, on any API server.

    with FakeNodes(url, token=token, ca_file=ca_file) as nodes:
        ...                                      # pods are bound, get an address and are Ready
        nodes.fate("llama-*-2", unschedulable("0/3 nodes are available"))
        nodes.fate("llama-*-2", ready())         # from now on, for those that are there too
        nodes.ring("llama-*", pb.CONNECTING, "stage 1 of llama-x-0 hangs")
        nodes.lose("node-1")

Pods are named by shell patterns, and of several fates the one told last counts (support.podstatus
has them all). The nodes live in a thread of their own, so no event loop of a test or of an operator
is in their way; every method may be called from any other thread, and has taken effect when it
returns, but for what must pass through the API server. Stage 0 of each pipeline gets a leader, a
real gRPC server on port 7070 of its address, which reports READY when all pods of the pipeline are.
A profile pod ends with `profile` in its termination message. Deployments get their pods.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import grpc

from stageline_api.profile import ModelProfile
from stageline_local.client import DEPLOYMENT, NODE, POD, SECRET, ApiError, Change, Client, Object
from stageline_worker.last_words import packed
from support.fakedeployments import bury, deploy
from support.fakeleader import FakeLeader, Ring, Worker
from support.fakepod import FakePod, stage_document
from support.podstatus import (
    Fate,
    crashing,
    done,
    ended,
    lost,
    node_status,
    pod_status,
    ready,
    waiting,
)
from support.profiles import dense

PORT = 7070
_T = TypeVar("_T")
_SECONDS = 30.0
_RETRY = 0.2


class FakeNodes:
    """A context manager; `delay` is the time in seconds from a pod's binding to its readiness."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        ca_file: str | Path = "",
        nodes: int = 3,
        node_labels: dict[str, str] | None = None,
        delay: float = 0.0,
        profile: ModelProfile | None = None,
        deployments: bool = True,
    ) -> None:
        self._server = (url, token, Path(ca_file) if ca_file else None)
        self._names = [f"node-{number}" for number in range(nodes)]
        self._labels = node_labels or {}
        self._delay = delay
        self._profile = packed(profile or dense(per_layer=1_000_000, vocabulary=1_000))
        self._with_deployments = deployments
        self._fates: list[tuple[str, Fate]] = []
        self._rings: list[tuple[str, Ring]] = []
        self._lost: set[str] = set()
        self._pods: dict[str, FakePod] = {}
        self._deployments: dict[str, Object] = {}
        self._count = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="nodes")

    def __enter__(self) -> FakeNodes:
        self._thread.start()
        self._started.result(_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(_SECONDS)
        assert not self._thread.is_alive(), f"the fake nodes did not stop in {_SECONDS} s"
        assert not self._errors, f"the fake nodes failed: {self._errors[0]!r}"

    # What a test says

    def fate(self, pattern: str, fate: Fate) -> None:
        """What becomes of pods of this name, those that are there and those to come."""
        self._change(lambda: self._fates.append((pattern, fate)))

    def mend(self, pattern: str) -> None:
        """The cause is gone: what was said by `fate` of this pattern holds no more."""
        self._change(
            lambda: setattr(self, "_fates", [one for one in self._fates if one[0] != pattern])
        )

    def ring(
        self,
        pattern: str,
        state: int | None = None,
        message: str = "",
        *,
        silent: bool = False,
        in_flight: int = 0,
        note: str = "",
    ) -> None:
        """What the leaders of pipelines of this name report; see Ring."""
        ring = Ring(state, message, silent, in_flight, note)
        self._change(lambda: self._rings.append((pattern, ring)))

    def die(
        self,
        pattern: str,
        exit_code: int = 137,
        reason: str = "Error",
        message: str = "",
        *,
        down: float = 0.0,
    ) -> None:
        """The container of each such pod ends, and starts again after `down` seconds."""

        def end() -> None:
            for pod in self._named(pattern):
                pod.restarts += 1
                pod.last = ended(exit_code, reason, message)
                pod.down_until = self._loop.time() + down
                self._stop_process(pod)

        self._change(end)

    def lose(self, node: str) -> None:
        """The node is heard no more: its pods are not Ready, and none of them ends gracefully."""
        self._change(lambda: self._lost.add(node))
        self._wait(self._mark(node))

    def find(self, node: str) -> None:
        """The node is back, with the pods that it had."""
        self._change(lambda: self._lost.discard(node))
        self._wait(self._mark(node))

    def watchers(self, pattern: str) -> int:
        """Open Watch streams on the leaders of pipelines of this name."""

        def count() -> int:
            leaders = [pod.leader for pod in self._pods.values() if pod.leader is not None]
            return sum(x.watchers for x in leaders if fnmatchcase(x.document.pipeline, pattern))

        return self._ask(count)

    # Between threads

    async def _run(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        url, token, ca_file = self._server
        try:
            async with Client(url, token=token, ca_file=ca_file, agent="fake-nodes") as client:
                self._client = client
                await asyncio.gather(*map(self._register, self._names))
                self._spawn(self._follow_pods())
                if self._with_deployments:
                    self._spawn(self._follow_deployments())
                self._started.set_result(None)
                await self._stopped.wait()
                await self._end()
        except Exception as error:  # whoever waits for the start must hear of it
            if not self._started.done():
                self._started.set_exception(error)
            else:
                self._errors.append(error)

    async def _end(self) -> None:
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pod in self._pods.values():
            self._stop_process(pod)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._errors.append(error)

        if self._stopped.is_set():  # a timer that was set before
            work.close()
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(over)

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    def _ask(self, question: Callable[[], _T]) -> _T:
        async def answer() -> _T:
            return question()

        return self._wait(answer())

    def _change(self, change: Callable[[], object]) -> None:
        def apply() -> None:
            change()
            for pod in self._pods.values():
                self._look_at(pod)

        self._ask(apply)

    # Nodes

    async def _register(self, name: str) -> None:
        labels = {"kubernetes.io/hostname": name, **self._labels}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        try:
            await self._client.create(NODE.place(), node)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        await self._mark(name)

    async def _mark(self, name: str) -> None:
        status = node_status(there=name not in self._lost)
        await self._client.merge_patch(
            NODE.place(name=name), {"status": status}, subresource="status"
        )

    # Pods

    async def _follow_pods(self) -> None:
        async for change in self._client.follow(POD.place()):
            if change.type != "SYNCED":
                self._pod_changed(change)

    def _pod_changed(self, change: Change) -> None:
        uid = change.object["metadata"]["uid"]
        if change.type != "DELETED":
            pod = self._pods.get(uid) or self._new(change.object)
            pod.object = change.object
            self._look_at(pod)
        elif (gone := self._pods.pop(uid, None)) is not None:
            self._stop_process(gone)
            self._report(gone)
        self._deploy_all()

    def _new(self, obj: Object) -> FakePod:
        taken = {pod.ip for pod in self._pods.values()}
        while (ip := f"127.{_byte()}.{_byte()}.{_byte()}") in taken:
            pass
        pod = FakePod(obj, ip, stage_document(obj, ip))
        self._pods[pod.uid] = pod
        return pod

    def _named(self, pattern: str) -> list[FakePod]:
        return [pod for pod in self._pods.values() if fnmatchcase(pod.name, pattern)]

    def _look_at(self, pod: FakePod) -> None:
        self._spawn(self._tend(pod))

    async def _tend(self, pod: FakePod) -> None:
        async with pod.turn:
            if self._pods.get(pod.uid) is not pod:
                return
            try:
                await self._step(pod, self._fate_of(pod))
            except ApiError as error:
                # It may be gone, or another, and its event comes; or its Secret is not there yet.
                if error.status != 409:
                    self._loop.call_later(_RETRY, self._look_at, pod)
        self._report(pod)

    async def _step(self, pod: FakePod, fate: Fate) -> None:
        if pod.node in self._lost:
            self._stop_process(pod)
            await self._write(pod, ("lost",), lost(pod.object.get("status", {})))
        elif "deletionTimestamp" in pod.object["metadata"]:
            if not pod.ending:
                pod.ending = True
                self._spawn(self._finish(pod, fate.ends_after))
        elif pod.node in self._names:
            await self._be(pod, fate)
        elif not pod.node and fate.kind == "unschedulable":
            await self._write(pod, (fate,), pod_status(pod.object, fate))
        elif not pod.node:
            await self._bind(pod)

    async def _bind(self, pod: FakePod) -> None:
        if not (nodes := [name for name in self._names if name not in self._lost]):
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": nodes[next(self._count) % len(nodes)]}
        binding = {
            "apiVersion": "v1", "kind": "Binding", "target": target,
            "metadata": {"name": pod.name, "namespace": pod.pipeline[0], "uid": pod.uid},
        }  # fmt: skip
        await self._client.create(f"{pod.path}/binding", binding)

    async def _be(self, pod: FakePod, fate: Fate) -> None:
        clock = self._loop.time()
        pod.bound = pod.bound or clock
        if (left := pod.bound + fate.after - clock) > 0:
            fate = waiting("ContainerCreating")
        elif (left := pod.down_until - clock) > 0:
            fate = crashing(restarts=pod.restarts)
        elif fate.kind == "crashing":
            pod.restarts = max(pod.restarts, fate.restarts)
            pod.last = ended(fate.exit_code, fate.reason, fate.message)
        if left > 0:
            self._loop.call_later(left, self._look_at, pod)
        await self._start_process(pod, fate)
        status = pod_status(pod.object, fate, pod.ip, pod.restarts, pod.last)
        await self._write(pod, (fate, pod.restarts), status)

    async def _write(self, pod: FakePod, what: tuple[object, ...], status: Object) -> None:
        if pod.written != what:
            patch = {"metadata": {"uid": pod.uid}, "status": status}
            await self._client.merge_patch(pod.path, patch, subresource="status")
            pod.written = what

    async def _finish(self, pod: FakePod, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._stop_process(pod)
        while self._pods.get(pod.uid) is pod:
            # A node that is lost meanwhile confirms nothing.
            with suppress(ApiError):
                if pod.node not in self._lost:
                    await self._client.delete(pod.path, grace_seconds=0, uid=pod.uid)
            await asyncio.sleep(_RETRY)

    def _fate_of(self, pod: FakePod) -> Fate:
        for pattern, fate in reversed(self._fates):
            if fnmatchcase(pod.name, pattern):
                return fate
        labels = pod.object["metadata"].get("labels") or {}
        if labels.get("app.kubernetes.io/component") == "profile":
            return done(self._profile, after=self._delay)
        return ready(after=self._delay)

    # Workers and leaders

    async def _start_process(self, pod: FakePod, fate: Fate) -> None:
        if fate.kind not in ("ready", "starting"):
            self._stop_process(pod)
            return
        pod.loaded = fate.kind == "ready"
        document = pod.document
        if document is not None and document.stage == 0 and pod.leader is None:
            credentials = await self._credentials(pod.object) if document.credentials else None
            pod.leader = FakeLeader(document, f"{pod.ip}:{PORT}", credentials)

    async def _credentials(self, pod: Object) -> grpc.ServerCredentials:
        """What the pod's certificate makes of its port: it asks for one of the same authority."""
        (name,) = [v["secret"]["secretName"] for v in pod["spec"]["volumes"] if v["name"] == "tls"]
        secret = await self._client.get(SECRET.place(pod["metadata"]["namespace"], name))
        files = {key: base64.b64decode(text) for key, text in secret["data"].items()}
        pair = (files["tls.key"], files["tls.crt"])
        return grpc.ssl_server_credentials([pair], files["ca.crt"], require_client_auth=True)

    def _stop_process(self, pod: FakePod) -> None:
        pod.loaded = None
        if pod.leader is not None:
            pod.leader.stop()
            pod.leader = None

    def _report(self, of: FakePod) -> None:
        """Let the leader of this pod's pipeline say how its workers are."""
        if of.document is None:
            return
        pods = [pod for pod in self._pods.values() if pod.pipeline == of.pipeline]
        workers = [
            Worker(pod.document, pod.name, pod.incarnation, pod.loaded)
            for pod in pods
            if pod.document is not None and pod.loaded is not None
        ]
        for pod in pods:
            if pod.leader is not None:
                pod.leader.tell(workers, self._ring_of(pod.pipeline[1]), draining=pod.ending)

    def _ring_of(self, pipeline: str) -> Ring:
        told = (ring for pattern, ring in reversed(self._rings) if fnmatchcase(pipeline, pattern))
        return next(told, Ring())

    # Deployments

    async def _follow_deployments(self) -> None:
        async for change in self._client.follow(DEPLOYMENT.place()):
            if change.type == "DELETED":
                self._deployments.pop(change.object["metadata"]["uid"], None)
                await bury(self._client, change.object, self._pod_objects())
            elif change.type != "SYNCED":
                self._deployments[change.object["metadata"]["uid"]] = change.object
                self._deploy_all()

    def _deploy_all(self) -> None:
        for uid in self._deployments:
            self._spawn(self._deploy(uid))

    async def _deploy(self, uid: str) -> None:
        if (deployment := self._deployments.get(uid)) is None:
            return
        try:
            await deploy(self._client, deployment, self._pod_objects())
        except ApiError as error:
            if error.status not in (404, 409):
                self._loop.call_later(_RETRY, self._deploy_all)

    def _pod_objects(self) -> list[Object]:
        return [pod.object for pod in self._pods.values()]


def _byte() -> int:
    return random.SystemRandom().randrange(1, 255)
