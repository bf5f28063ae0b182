"""Keys that are to be looked at: each once, however often it was added."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from stageline_local.client import ApiError

Key = TypeVar("Key", bound=Hashable)
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Work(Generic[Key]):
    """One after the other, in the order of their first adding."""

    def __init__(self) -> None:
        self._keys: dict[Key, None] = {}
        self._some = asyncio.Event()
        self._delays: dict[Key, float] = {}

    def add(self, key: Key) -> None:
        """Look at this, again if it is being looked at now."""
        self._keys[key] = None
        self._some.set()

    async def run(self, look: Callable[[Key], Awaitable[None]]) -> None:
        """Until cancelled. What the API server refused is looked at again, later each time."""
        while True:
            await self._some.wait()
            key = next(iter(self._keys))
            del self._keys[key]
            if not self._keys:
                self._some.clear()
            try:
                await look(key)
                self._delays.pop(key, None)
            except ApiError as error:
                delay = self._delays.get(key, _FIRST_RETRY_SECONDS)
                self._delays[key] = min(2 * delay, _LAST_RETRY_SECONDS)
                _log.info("key=%s again in %g s after: %s", key, delay, error)
                asyncio.get_running_loop().call_later(delay, self.add, key)
