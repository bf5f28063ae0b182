"""One loopback address for each pod, so that all pods can use the same port."""

from __future__ import annotations

import os
from hashlib import blake2b

HOST = "127.0.0.1"


class Addresses:
    """Gives out addresses of 127.16.0.0 and up. A name has the same one always.

    Another cluster on this machine gives its pods, though called the same, other addresses.
    """

    def __init__(self) -> None:
        self._salt = os.urandom(16)
        self._given: dict[str, str] = {}
        self._used: set[str] = set()

    def of(self, name: str) -> str:
        """The address of what has this name."""
        if name not in self._given:
            attempt, address = 0, self._hashed(name)
            while address in self._used:
                attempt += 1
                address = self._hashed(f"{name}#{attempt}")
            self._used.add(address)
            self._given[name] = address
        return self._given[name]

    def _hashed(self, name: str) -> str:
        a, b, c = blake2b(name.encode(), digest_size=3, key=self._salt).digest()
        return f"127.{16 + a % 224}.{b}.{1 + c % 254}"
