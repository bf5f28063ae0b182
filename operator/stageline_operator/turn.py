"""One operator at a time: whoever holds the Lease of a scope serves it, others stand by.

Two operators with one scope would not break anything, since every write names what it has seen, but
each would undo what the other does, for as long as both run. The Lease is in each namespace that is
served, and for an operator of all there is another in `default`. Who stands by though an operator
of another release serves, leaves a mark on its Lease, so that it can tell its resources. An API
server that does not answer takes nobody's turn away: while it is silent, nobody else can take it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from stageline_operator import lease
from stageline_operator.cluster import (
    AlreadyExists,
    Busy,
    Cluster,
    ClusterError,
    Conflict,
    Gone,
    Refused,
)
from stageline_operator.kinds import LEASE, Object

log = logging.getLogger(__name__)

_EVERYWHERE: Final = "default"
_LOOK_SECONDS: Final = 2.0
_FAREWELL_SECONDS: Final = 1.0
_TRIES: Final = 3
_NO_MARK: Final = {lease.CONTENDER: None}


def identity(release: str = "") -> str:
    """Of this process: a container that is started again in its pod is the same one."""
    process = f"{socket.gethostname()}_{os.getpid()}"
    return f"{release}/{process}" if release else process


class Turn:
    """The Leases of one operator."""

    def __init__(
        self,
        cluster: Cluster,
        namespaces: Sequence[str],
        mine: str,
        *,
        is_dead: Callable[[str], bool] = lambda other: False,
    ) -> None:
        self._cluster = cluster
        self._places = sorted(set(namespaces)) or [_EVERYWHERE]
        self._name = lease.NAME if namespaces else lease.NAME_OF_ALL
        self._serves_all = not namespaces
        self._mine = mine
        self._is_dead = is_dead
        self._beats = lease.Unchanged()
        self._marks = lease.Unchanged()
        self._contenders: dict[str, str] = {}
        self._said = ""
        self.waits_for = ""
        """A sentence while it stands by; empty while it serves."""

    async def wait(self) -> None:
        """Come back once every Lease is held."""
        while True:
            try:
                # All or none: one that is held by an operator that stands by helps nobody. In
                # order: of two that want the same places, one has the first, and then the others.
                taken = await self._others() or await self._hold_all()
            except Busy as error:
                self._say(f"{error}: waiting")
            else:
                self.waits_for = f"standing by: {taken}" if taken else ""
                if not taken:
                    return
                self._say(self.waits_for)
            await asyncio.sleep(_LOOK_SECONDS)

    async def keep(self, contended: Callable[[], None] = lambda: None) -> str:
        """Renew the Leases until somebody else has one; a sentence that says who.

        `contended` is told whenever another begins or ends to wait for one of them.
        """
        while True:
            await asyncio.sleep(lease.RENEW_SECONDS)
            before = dict(self._contenders)
            with suppress(Busy):
                if taken := await self._hold_all():
                    return taken
            if self._contenders != before:
                contended()

    async def release(self) -> None:
        """Let the next one in at once."""
        with suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                for place in self._places:
                    await self._leave(place)

    def standing_by(self) -> list[str]:
        """Why nothing is served."""
        return [self.waits_for] if self.waits_for else []

    def conflict(self, namespace: str) -> str:
        """That an operator of another release wants to serve this namespace; empty: none does."""
        other = self._contenders.get(_EVERYWHERE if self._serves_all else namespace, "")
        return lease.conflict(self._mine, other) if other else ""

    async def _others(self) -> str:
        """Who holds the first Lease that another holds; each of these gets our mark. Busy."""
        sentences = []
        for place in self._places:
            found = await self._found(place)
            if found is not None and (other := self._other(place, found)):
                sentences.append(self._taken(other, place))
                if not lease.are_of_one_release(other, self._mine):
                    await self._leave_mark(place, found)
        return sentences[0] if sentences else ""

    async def _hold_all(self) -> str:
        """Hold or renew all; which of them is somebody else's, in a sentence. Busy."""
        for place in self._places:
            if other := await self._hold(place):
                for held in self._places[: self._places.index(place)]:
                    await self._leave(held)
                return self._taken(other, place)
        return ""

    async def _hold(self, place: str) -> str:
        """Who holds the Lease of `place`; empty when that is us, or nobody can."""
        for _ in range(_TRIES):
            found = await self._found(place)
            if found is None:
                return ""
            if other := self._other(place, found):
                return other
            try:
                await self._renew(place, found)
            except (Conflict, Gone):  # others leave marks at any moment, which change it too
                continue
            except Refused as error:
                log.warning("the Lease in %s cannot be held: %s", place, error)
            return ""
        raise Busy(f"the Lease {self._name} in namespace {place} changes all the time")

    async def _found(self, place: str) -> Object | None:
        """The Lease, made where there was none; None where there can be none."""
        try:
            return await self._cluster.get(LEASE, place, self._name)
        except Gone:
            return await self._made(place)
        except Refused as error:
            log.warning("no Lease in %s, so a second operator is not noticed: %s", place, error)
            return None

    async def _made(self, place: str) -> Object | None:
        made = {
            "apiVersion": LEASE.api_version, "kind": LEASE.kind,
            "metadata": {"name": self._name, "namespace": place},
        }  # fmt: skip
        try:
            return await self._cluster.create(made)
        except AlreadyExists as error:
            raise Busy(f"another operator has just made its Lease in {place}") from error
        except (Gone, Refused) as error:  # there is no such namespace, or it is about to go
            log.debug("no Lease in %s: %s", place, error)
            return None

    async def _renew(self, place: str, found: Object) -> None:
        spec = lease.held(found, self._mine, datetime.now(UTC))
        mark, known = lease.mark(found), lease.holder(found) == self._mine
        waits = bool(mark) and known and self._marks.seconds(place, mark, _now()) < _patience()
        await self._write(place, found, spec, {} if waits or not mark else _NO_MARK)
        self._contenders[place] = lease.marked_by(mark) if waits else ""

    async def _leave_mark(self, place: str, found: Object) -> None:
        """Where there is none that somebody else renews."""
        mark = lease.mark(found)
        is_mine = lease.marked_by(mark) == self._mine
        age = self._marks.seconds(place, mark, _now())
        if mark and age < (lease.RENEW_SECONDS if is_mine else _patience()):
            return
        with suppress(Conflict, Gone, Refused):
            made = {lease.CONTENDER: lease.marked(self._mine, datetime.now(UTC))}
            await self._write(place, found, {}, made)

    async def _leave(self, place: str) -> None:
        """Neither hold the Lease nor wait for it any more."""
        for _ in range(_TRIES):
            with suppress(Conflict):
                await self._try_to_leave(place)
                return

    async def _try_to_leave(self, place: str) -> None:
        with suppress(Gone, Refused):
            found = await self._cluster.get(LEASE, place, self._name)
            if lease.holder(found) == self._mine:
                await self._write(place, found, {"holderIdentity": ""}, {})
            elif lease.marked_by(lease.mark(found)) == self._mine:
                await self._write(place, found, {}, _NO_MARK)

    async def _write(
        self, place: str, found: Object, spec: Object, annotations: dict[str, Any]
    ) -> None:
        """Only if it is still as it was found. Conflict, Gone."""
        metadata: Object = {"resourceVersion": found["metadata"]["resourceVersion"]}
        body = {"metadata": {**metadata, "annotations": annotations}, "spec": spec}
        await self._cluster.patch(LEASE, place, self._name, body)

    def _other(self, place: str, found: Object) -> str:
        """Who holds it, if that is not us and has not died or forgotten to renew it."""
        other = lease.holder(found)
        if other in ("", self._mine):
            return ""
        still = self._beats.seconds(place, lease.beat(found), _now())
        is_over = still >= lease.duration(found) or self._is_dead(other)
        return "" if is_over else other

    def _taken(self, other: str, place: str) -> str:
        return (
            f"{other} holds the Lease {self._name} in namespace {place}, and one operator at a "
            "time serves it"
        )

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            log.warning("%s", sentence)
            self._said = sentence


def is_dead(other: str) -> bool:
    """Whether this is a process of this very host that has ended."""
    host, _, number = other.rpartition("/")[2].rpartition("_")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _patience() -> float:
    return float(lease.DURATION_SECONDS)


def _now() -> float:
    return asyncio.get_running_loop().time()
