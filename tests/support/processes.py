"""Waiting for conditions, and finding the processes that a test has started."""

import asyncio
import time
from pathlib import Path


async def until(condition, seconds=20.0, what="the condition"):
    """Return the condition's first true value; fail with a sentence after the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s"
        await asyncio.sleep(0.01)
    return value


def alive(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def environment(pid: int) -> dict[str, str]:
    """The environment that the process was started with; empty in the moment when it becomes one.

    Between fork and exec it has none.
    """
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def processes_marked(marker: str) -> list[int]:
    """Processes that have MARK=marker in their environment: a test's own, and their children."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if environment(int(folder.name)).get("MARK") == marker and alive(int(folder.name)):
                found.append(int(folder.name))
        except OSError:  # gone meanwhile, or another user's
            continue
    return found


def written(path: Path, text: str) -> bool:
    """The file is there and has the text."""
    return path.exists() and text in path.read_text()
