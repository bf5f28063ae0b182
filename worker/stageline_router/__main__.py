"""python -m stageline_router: serve one model's pipelines over the Open Inference Protocol."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

# The core's own lines would stand between ours; it reads this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import uvloop

from stageline_router.document import DocumentError, changes, read_document
from stageline_router.server import Folders, RouterError, RouterServer
from stageline_wire.logs import to_stderr

_FOLDERS = {
    "--credentials": "ca.crt, tls.crt and tls.key by which leaders know this router",
    "--tls": "tls.crt and tls.key for clients (default: plaintext)",
    "--tokens": "a file token with the bearer tokens of clients, one a line (default: all may ask)",
}


async def _serve(path: Path, folders: Folders) -> None:
    router = RouterServer(read_document(path), folders)
    await router.start()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    following = asyncio.create_task(_follow(router, path))
    await stopped.wait()
    following.cancel()
    await router.stop(router.document.drain_seconds)


async def _follow(router: RouterServer, path: Path) -> None:
    async for document in changes(path, router.document):
        await router.update(document)


def main() -> int:
    """Serve until SIGTERM or SIGINT, then drain; the exit code."""
    parser = argparse.ArgumentParser(prog="stageline_router", description=__doc__)
    parser.add_argument(
        "--document", type=Path, required=True, help="the router document, JSON; watched"
    )
    for flag, what in _FOLDERS.items():
        parser.add_argument(flag, type=Path, metavar="FOLDER", help=what)
    arguments = parser.parse_args()
    folders = Folders(arguments.credentials, arguments.tls, arguments.tokens)
    to_stderr()
    try:
        # Half of what a token costs here is waking up, and this loop does that in less.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(arguments.document, folders))
    except (DocumentError, RouterError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
