"""Watches: what happened since a resource version, then what happens, as one endless answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from stageline_local.apiserver.errors import Refusal, bad_request
from stageline_local.apiserver.kinds import Kind, Object
from stageline_local.apiserver.selectors import Matches
from stageline_local.apiserver.store import Change, Store

BOOKMARK_SECONDS: Final = 30.0
_LONGEST: Final = 3600.0
_INITIAL_END: Final = "k8s.io/initial-events-end"
Event = tuple[str, Object]


@dataclass(frozen=True, slots=True)
class Watch:
    """What one client wants to be told."""

    kind: Kind
    namespace: str
    matches: Matches
    since: int | None
    """Resource version; None for all that there is first."""
    bookmarks: bool
    initial_end: bool
    """Whether a bookmark says that the first objects have all been told."""
    seconds: float
    show: Callable[[Object], Object]
    """How an object is put into an event."""


def parsed_version(text: str | None) -> int | None:
    """A resource version of a query; absent and 0 mean: whatever there is."""
    if not text or text == "0":
        return None
    if not text.isdecimal():
        raise bad_request(f"Invalid value: {text!r}: strconv.ParseUint: invalid syntax")
    return int(text)


def seen(watch: Watch, change: Change) -> Event | None:
    """A change as this client sees it: what leaves its selection is deleted to it."""
    meta = change.object["metadata"]
    if watch.namespace and meta.get("namespace") != watch.namespace:
        return None
    is_in = change.type != "DELETED" and watch.matches(change.object)
    was_in = change.before is not None and watch.matches(change.before)
    if is_in:
        return ("MODIFIED" if was_in else "ADDED"), change.object
    return ("DELETED", change.object) if was_in else None


async def serve(request: web.Request, store: Store, watch: Watch) -> web.StreamResponse:
    """Answer until the time is up or the client has gone."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    changes: asyncio.Queue[Change] = asyncio.Queue()
    # Listening begins in the same breath as the look at what there is: nothing gets lost between.
    stop = store.listen(changes.put_nowait)
    try:
        first, version = _first(store, watch)
        await response.prepare(request)
        await _send(response, watch, first)
        if not any(what == "ERROR" for what, _ in first):
            await _follow(response, watch, changes, version)
    finally:
        stop()
    return response


def _first(store: Store, watch: Watch) -> tuple[list[Event], int]:
    """What is told at once, and the resource version that it goes up to."""
    version = store.version
    if watch.since is None:
        found = store.all(watch.kind, watch.namespace)
        told: list[Event] = [("ADDED", obj) for obj in found if watch.matches(obj)]
        if watch.initial_end:
            told.append(_bookmark(watch, version, end=True))
        return told, version
    try:
        missed = list(store.since(watch.since))
    except Refusal as refusal:
        return [("ERROR", refusal.status())], version
    told = [
        event
        for change in missed
        if change.place == watch.kind.store and (event := seen(watch, change)) is not None
    ]
    if watch.initial_end:
        told.append(_bookmark(watch, version, end=True))
    return told, version


async def _follow(
    response: web.StreamResponse, watch: Watch, changes: asyncio.Queue[Change], version: int
) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + min(watch.seconds, _LONGEST)
    while (left := end - loop.time()) > 0:
        try:
            async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                change = await changes.get()
        except TimeoutError:
            if watch.bookmarks:
                await _send(response, watch, [_bookmark(watch, version)])
            continue
        batch = [change]
        while not changes.empty():
            batch.append(changes.get_nowait())
        version = batch[-1].version
        events = [seen(watch, each) for each in batch if each.place == watch.kind.store]
        await _send(response, watch, [event for event in events if event is not None])


def _bookmark(watch: Watch, version: int, *, end: bool = False) -> Event:
    meta: Object = {"resourceVersion": str(version), "creationTimestamp": None}
    if end:
        meta["annotations"] = {_INITIAL_END: "true"}
    kind = watch.kind
    return "BOOKMARK", {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}


async def _send(response: web.StreamResponse, watch: Watch, events: list[Event]) -> None:
    lines = [
        json.dumps(
            {"type": what, "object": obj if what in ("ERROR", "BOOKMARK") else watch.show(obj)},
            separators=(",", ":"),
        )
        for what, obj in events
    ]
    if lines:
        await response.write(("\n".join(lines) + "\n").encode())
