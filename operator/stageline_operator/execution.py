"""One decision about one resource, being carried out; see stageline_operator.reconcile."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from stageline_operator.cache import Cache, Child, Key, key_of
from stageline_operator.cluster import (
    AlreadyExists,
    Cluster,
    ClusterError,
    Conflict,
    Gone,
    Refused,
)
from stageline_operator.decision import Decision, Delete, Notice, Patch
from stageline_operator.events import event
from stageline_operator.kinds import CHILDREN, PIPELINE_DEPLOYMENT, Kind, Object, kind_of
from stageline_operator.memory import Memory, strain, wish_of
from stageline_operator.observed import Observed
from stageline_operator.quarrels import who_changes
from stageline_operator.queue import Later

log = logging.getLogger("stageline_operator.reconcile")  # the word that users know

_FORCED_GRACE_SECONDS: Final = 0
_SECOND_LOOK_SECONDS: Final = 1.0
"""After a write to children: what is made or gone may itself be a reason to do more."""


class Execution:
    """From the first effect to the last word about it."""

    def __init__(
        self, cluster: Cluster, cache: Cache, key: Key, observed: Observed, memory: Memory
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._key = key
        self._observed = observed
        self._memory = memory
        self._unforeseen: list[str] = []
        self._done: list[str] = []
        self._wrote_children = False
        self._began = _now()

    async def effects(self, decision: Decision, slots: asyncio.Semaphore) -> bool:
        """Whether the decision stands; otherwise decide anew with what the memory knows now."""
        before = self._memory.obstacles
        steps: tuple[Iterable[Awaitable[None]], ...] = (
            map(self._apply, decision.first),
            chain(map(self._apply, decision.apply), map(self._patch, decision.patch)),
            map(self._delete, decision.delete),
            map(self._create, decision.create),
        )
        for step in steps:
            await _together(step, slots)
            self._wrote_children = bool(self._done)
            if self._unforeseen:
                raise Later(self._unforeseen[0])
            if self._memory.obstacles != before:
                return False
        self._memory.complaints += decision.deeds
        return True

    async def tell(self, decision: Decision, rate: float) -> None:
        """Status first: when it cannot be written, the Events of its transition wait too.

        `rate` is how many reconciles there are in a second.
        """
        resource = self._observed.resource
        for notice in self._memory.late(resource):
            await self._post(notice)
        patience = decision.status_waits if decision.status is not None else None
        now = _now()
        if self._memory.status_wait(patience, strain(now - self._began, rate), now):
            return
        if decision.status is not None:
            self._memory.writes(decision.status, decision.notices)
            try:
                self._answered(await self._cluster.apply_status(resource, decision.status))
            except Gone:
                self._cache.found_gone(self._key, PIPELINE_DEPLOYMENT, self._key.name)
                return
            self._memory.was_written()
            self._done.append("wrote status")
        complaints, self._memory.complaints = self._memory.complaints, []
        for notice in (*complaints, *decision.notices):
            await self._post(notice)

    @property
    def again(self) -> float | None:
        """Seconds until a second look is due, though nobody may tell of anything new."""
        return _SECOND_LOOK_SECONDS if self._wrote_children else None

    def log(self) -> None:
        """One line for a decision that did something."""
        if self._done:
            log.info("%s", ", ".join(self._done), extra={"key": str(self._key)})

    async def _apply(self, wished: Object) -> None:
        child, now, wish = child_of(wished), _now(), wish_of(wished)
        live = self._observed.of(child[0]).get(child[1])
        if self._memory.is_blocked(child, wish, now):
            return
        try:
            if live is None:
                answer = await self._cluster.create(wished)
            else:
                answer = await self._cluster.restore(wished, live)
        except AlreadyExists:
            await self._find_out_whose(child)
        except (Conflict, Gone) as error:
            await self._look_at(child, error)
        except Refused as refusal:
            self._memory.was_refused(child, str(refusal), now)
        else:
            await self._wrote("made" if live is None else "restored", child, wish, answer, now)

    async def _patch(self, patch: Patch) -> None:
        child, now, wish = (patch.kind, patch.name), _now(), wish_of(patch.body)
        if self._memory.is_blocked(child, wish, now):
            return
        try:
            answer = await self._cluster.patch(*self._place(child), patch.body)
        except Gone:
            self._cache.found_gone(self._key, *child)
        except Conflict as error:
            self._unforeseen.append(str(error))
        except Refused as refusal:
            self._memory.was_refused(child, str(refusal), now)
        else:
            await self._wrote("patched", child, wish, answer, now)

    async def _wrote(self, how: str, child: Child, wish: str, answer: Object, now: float) -> None:
        self._answered(answer)
        self._done.append(f"{how} {_called(child)}")
        if self._memory.repaired(child, wish, now):
            complaint = _deleted(child) if how == "made" else await self._changed(child)
            self._memory.complaints.append(complaint)

    async def _delete(self, delete: Delete) -> None:
        child = (delete.kind, delete.name)
        grace = _FORCED_GRACE_SECONDS if delete.force else None
        try:
            answer = await self._cluster.delete(*self._place(child), delete.uid, grace)
        except Gone:
            self._cache.found_gone(self._key, *child)
        except Conflict as error:
            await self._look_at(child, error)
        else:
            if answer is None:
                self._cache.found_gone(self._key, *child)
            else:
                self._answered(answer)
            self._done.append(f"deleted {_called(child)}")

    async def _create(self, pod: Object) -> None:
        child, now = child_of(pod), _now()
        if self._memory.is_blocked(child, "", now):
            return
        try:
            self._answered(await self._cluster.create(pod))
        except AlreadyExists:
            await self._find_out_whose(child)
        except Refused as refusal:
            self._memory.was_refused(child, str(refusal), now)
        else:
            self._done.append(f"created {_called(child)}")
            if self._memory.repaired(child, "", now):
                self._memory.complaints.append(_deleted(child))

    async def _find_out_whose(self, child: Child) -> None:
        """Ours but not seen yet, or somebody else's?"""
        obj = await self._cluster.get(*self._place(child))
        if self._memory.is_ours(obj, self._observed.resource):
            self._answered(obj)
            self._unforeseen.append(f"{_called(child)} was there already")
        else:
            # Nobody tells when a child goes that is not watched: it is asked for more often.
            leaving = child[0] not in CHILDREN and key_of(obj) == self._key
            self._memory.was_taken(child, obj, _now(), leaving=leaving)

    async def _look_at(self, child: Child, error: ClusterError) -> None:
        """What we believed of a child was wrong: learn what is so."""
        self._unforeseen.append(f"{_called(child)}: {error}")
        try:
            self._answered(await self._cluster.get(*self._place(child)))
        except Gone:
            self._cache.found_gone(self._key, *child)

    async def _changed(self, child: Child) -> Notice:
        obj = await self._cluster.get(*self._place(child))
        kind, name = child
        note = (
            f"{kind.kind} {name} is changed again and again by {who_changes(obj)}: it is brought "
            "back twice a minute from now on; make that stop, or change the PipelineDeployment"
        )
        return Notice("Warning", "ChildContested", note, "Restore")

    async def _post(self, notice: Notice) -> None:
        self._done.append(f"told {notice.reason}: {notice.note}")
        resource, unique = self._observed.resource, uuid.uuid4().hex[:16]
        made = event(resource, notice, datetime.now(UTC), socket.gethostname(), unique)
        try:
            await self._cluster.post_event(made)
        except ClusterError as error:  # the status says the same: an Event is worth no retry
            log.warning("Event %s is lost: %s", notice.reason, error, extra={"key": str(self._key)})

    def _answered(self, obj: Object) -> None:
        self._cache.answered(self._key, obj, _now())

    def _place(self, child: Child) -> tuple[Kind, str, str]:
        return child[0], self._key.namespace, child[1]


async def _together(calls: Iterable[Awaitable[None]], slots: asyncio.Semaphore) -> None:
    """All of them, a bounded number at a time; the first error when all have ended."""

    async def one(call: Awaitable[None]) -> None:
        async with slots:
            await call

    ended = await asyncio.gather(*map(one, calls), return_exceptions=True)
    for outcome in ended:
        if outcome is not None:
            raise outcome


def child_of(obj: Object) -> Child:
    """Kind and name of a child."""
    return kind_of(obj), obj["metadata"]["name"]


def _deleted(child: Child) -> Notice:
    kind, name = child
    note = (
        f"{kind.kind} {name} is deleted again and again: it is made anew twice a minute from now "
        "on; find who deletes it, or change the PipelineDeployment"
    )
    return Notice("Warning", "ChildContested", note, "Restore")


def _called(child: Child) -> str:
    return f"{child[0].kind} {child[1]}"


def _now() -> float:
    return asyncio.get_running_loop().time()
