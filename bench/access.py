"""The API server that a kubeconfig names, for every process of a benchmark."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stageline_cli.failure import Failure
from stageline_cli.kubeconfig import kubeconfig_files, read_access
from stageline_local.client import Client


@dataclass(frozen=True, slots=True)
class Server:
    """An API server, and how to speak to it."""

    url: str
    token: str = ""
    ca_file: Path | None = None


@contextmanager
def by_kubeconfig() -> Iterator[tuple[Path, Server]]:
    """The first file of KUBECONFIG (or kubectl's own), and the server that it names."""
    files = kubeconfig_files(None, os.environ)
    try:
        access = read_access(files)
    except Failure as failure:
        raise SystemExit(f"{failure}; set KUBECONFIG") from None
    if access.certificate:
        raise SystemExit("this benchmark signs in with a token: give it a kubeconfig that has one")
    with tempfile.NamedTemporaryFile("w", suffix=".crt") as ca:
        ca.write(access.ca)
        ca.flush()
        yield files[0], Server(access.server, access.token, Path(ca.name) if access.ca else None)


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Client]:
    """A client of it."""
    made = Client(server.url, token=server.token, ca_file=server.ca_file, agent="stageline-bench")
    async with made as client:
        yield client
