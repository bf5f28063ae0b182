"""One operator at a time: whoever holds the Lease of a scope serves it, others stand by.

Two operators with one scope would not break anything, since every write names what it has seen, but
each would undo what the other does, for as long as both run. The Lease is in each namespace that is
served, and in `default` for an operator of all. An API server that does not answer takes nobody's
turn away: while it is silent, nobody else can take it either.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

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
_SOMEBODY: Final = "another operator"


def identity() -> str:
    """Of this process: a container that is started again in its pod is the same one."""
    return f"{socket.gethostname()}_{os.getpid()}"


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
        self._mine = mine
        self._is_dead = is_dead
        self._seen: dict[str, tuple[str, float]] = {}
        self._said = ""
        self.waits_for = ""
        """A sentence while it stands by; empty while it serves."""

    async def wait(self) -> None:
        """Come back once every Lease is held."""
        # In order: of two that want the same places, one has the first, and then the others.
        while True:
            try:
                taken = await self._first_taken()
            except Busy as error:
                self._say(f"{error}: waiting")
            else:
                self.waits_for = f"standing by: {taken}" if taken else ""
                if not taken:
                    return
                self._say(self.waits_for)
            await asyncio.sleep(_LOOK_SECONDS)

    async def keep(self) -> str:
        """Renew the Leases until somebody else has one; a sentence that says who."""
        while True:
            await asyncio.sleep(lease.RENEW_SECONDS)
            with suppress(Busy):
                if taken := await self._first_taken():
                    return taken

    async def release(self) -> None:
        """Let the next one in at once."""
        with suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                for place in self._places:
                    found = await self._cluster.get(LEASE, place, lease.NAME)
                    if lease.holder(found) == self._mine:
                        await self._write(place, found, {"holderIdentity": ""})

    def standing_by(self) -> list[str]:
        """Why nothing is served."""
        return [self.waits_for] if self.waits_for else []

    async def _first_taken(self) -> str:
        """Hold one Lease after the other; which is somebody else's, in a sentence. Busy."""
        for place in self._places:
            if other := await self._taken_by(place):
                return (
                    f"{other} holds the Lease {lease.NAME} in namespace {place}, and one operator "
                    "at a time serves it"
                )
        return ""

    async def _taken_by(self, place: str) -> str:
        """Who holds the Lease of `place`; empty when that is us, or nobody can."""
        try:
            found = await self._cluster.get(LEASE, place, lease.NAME)
        except Gone:
            return await self._made(place)
        except Refused as error:
            log.warning("no Lease in %s, so a second operator is not noticed: %s", place, error)
            return ""
        other = lease.holder(found)
        if other not in ("", self._mine) and not self._is_over(place, found):
            return other
        try:
            await self._write(place, found, lease.held(found, self._mine, datetime.now(UTC)))
        except (Conflict, Gone):
            return other if other != self._mine else _SOMEBODY
        return ""

    async def _made(self, place: str) -> str:
        spec = lease.held(None, self._mine, datetime.now(UTC))
        made = {
            "apiVersion": LEASE.api_version, "kind": LEASE.kind,
            "metadata": {"name": lease.NAME, "namespace": place}, "spec": spec,
        }  # fmt: skip
        try:
            await self._cluster.create(made)
        except AlreadyExists:
            return _SOMEBODY
        except (Gone, Refused) as error:  # there is no such namespace, or it is about to go
            log.debug("no Lease in %s: %s", place, error)
        return ""

    async def _write(self, place: str, found: Object, spec: Object) -> None:
        """Only if it is still as it was found."""
        version = found["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": spec}
        await self._cluster.patch(LEASE, place, lease.NAME, body)

    def _is_over(self, place: str, found: Object) -> bool:
        """Whether its holder has not renewed it in time, or is known to have died."""
        version, now = found["metadata"]["resourceVersion"], asyncio.get_running_loop().time()
        before, since = self._seen.get(place, ("", now))
        if version != before:
            self._seen[place] = (version, now)
            since = now
        return now - since >= lease.duration(found) or self._is_dead(lease.holder(found))

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            log.warning("%s", sentence)
            self._said = sentence


def is_dead(other: str) -> bool:
    """Whether this is a process of this very host that has ended."""
    host, _, number = other.rpartition("_")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
