"""Events about pods, as `kubectl describe` shows them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from stageline_local.client import ApiError, Client, Kind, Object
from stageline_local.kubelet.status import timestamp

EVENT = Kind("v1", "Event", "events")
_MOST_WAITING = 1000


@dataclass(slots=True)
class _Told:
    path: str
    count: int = 1


class Recorder:
    """Writes events one after the other while `run` runs; the same again counts up.

    An event that the API server does not take is lost: it was for people, and is no state.
    """

    def __init__(self, client: Client, component: str) -> None:
        self._client = client
        self._component = component
        self._waiting: asyncio.Queue[tuple[Object, str, str, str]] = asyncio.Queue(_MOST_WAITING)
        self._told: dict[tuple[str, str, str], _Told] = {}

    def tell(self, pod: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Something happened to the pod."""
        with contextlib.suppress(asyncio.QueueFull):
            kind = "Warning" if warning else "Normal"
            self._waiting.put_nowait((pod, kind, reason, message))

    def forget(self, pod: Object) -> None:
        """The pod is gone: nothing of it counts up any more."""
        uid = pod["metadata"]["uid"]
        self._told = {known: told for known, told in self._told.items() if known[0] != uid}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pod, kind, reason, message = await self._waiting.get()
            with contextlib.suppress(ApiError):
                await self._write(pod, kind, reason, message)

    async def _write(self, pod: Object, kind: str, reason: str, message: str) -> None:
        known, now = (pod["metadata"]["uid"], reason, message), timestamp(datetime.now(UTC))
        if told := self._told.get(known):
            told.count += 1
            patch = {"count": told.count, "lastTimestamp": now}
            await self._client.merge_patch(told.path, patch)
            return
        made = event(pod, kind, reason, message, now, self._component)
        await self._client.create(EVENT.place(pod["metadata"]["namespace"]), made)
        self._told[known] = _Told(EVENT.of(made))


def event(pod: Object, kind: str, reason: str, message: str, now: str, component: str) -> Object:
    """The object, with a name of its own."""
    metadata = pod["metadata"]
    about = {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "namespace": metadata["namespace"],
            "name": f"{metadata['name']}.{secrets.token_hex(8)}",
        },
        "involvedObject": about,
        "type": kind,
        "reason": reason,
        "message": message,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": component},
    }
