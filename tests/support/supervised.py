"""Processes for the runtime to keep."""

import sys
import textwrap
from pathlib import Path

from stageline_local.process import Phase, ProcessSpec
from stageline_local.restarts import RestartPolicy
from support.processes import until

FAST = RestartPolicy(first_delay=0.02, max_delay=0.1)
SLEEP = "import time; time.sleep(600)"
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def python(folder: Path, code: str, name="a", **fields) -> ProcessSpec:
    """A Python that runs `code`, its log in `folder`."""
    fields = {"restart": FAST, "grace_seconds": 5.0, **fields}
    command = (sys.executable, "-I", "-S", "-c", textwrap.dedent(code))
    return ProcessSpec(name, command, folder / f"{name}.log", **fields)


async def running(runtime, name="a", restarts=0):
    """What is observed of a process that runs, after so many restarts."""

    def ready():
        seen = runtime.observe()[name]
        return seen.phase is Phase.RUNNING and seen.restarts == restarts and seen

    return await until(ready, what=f"{name} running after {restarts} restarts")
