"""`stageline up` as a process: its manifest, its lines, its children, its end."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager

from stageline_local.ports import free_ports
from support.processes import processes_marked, until

MANIFEST = """
apiVersion: stageline.dev/v1alpha1
kind: PipelineDeployment
metadata: {{name: {name}}}
spec:
  model: {{uri: "file://{model}", dtype: float32{more}}}
  pipeline: {{stages: {stages}, device: cpu}}
  router: {{port: {port}}}
"""


def write_manifest(folder, model="/nowhere", name="tiny", stages=2, port=None, more=""):
    """A manifest in `folder`, and the port of its router."""
    port = port or free_ports(1)[0]
    path = folder / f"{name}.yaml"
    path.write_text(MANIFEST.format(name=name, model=model, stages=stages, port=port, more=more))
    return path, port


class Up:
    """A running `stageline up`. Its process and all that it starts carry MARK."""

    def __init__(self, process, mark):
        self.process = process
        self.mark = mark
        self.lines = []
        self.errors = []
        self._readers = [
            asyncio.create_task(self._read(process.stdout, self.lines)),
            asyncio.create_task(self._read(process.stderr, self.errors)),
        ]

    async def _read(self, stream, into):
        async for line in stream:
            into.append(line.decode().rstrip("\n"))

    async def line(self, text, seconds=60.0):
        """The first line with `text`."""

        def found():
            assert self.process.returncode is None or any(text in line for line in self.lines), (
                f"it ended without {text!r}: {self.lines + self.errors}"
            )
            return next((line for line in self.lines if text in line), None)

        return await until(found, seconds, f"a line with {text!r} in {self.lines}")

    def signal(self, number):
        os.kill(self.process.pid, number)

    async def end(self, seconds=30.0):
        """The exit code, and (stdout, stderr) as lines, once no process is left."""
        code = await asyncio.wait_for(self.process.wait(), seconds)
        await asyncio.gather(*self._readers)
        await until(lambda: not processes_marked(self.mark), what="the end of every process")
        return code

    async def clean_up(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.end()


@asynccontextmanager
async def up(folder, *arguments, **env):
    """Start `stageline up` with these arguments; nothing of it is left afterwards."""
    mark = str(folder)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stageline_cli.main", "up", *map(str, arguments)),
        *("--state-dir", str(folder / "state")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "MARK": mark, **env},
    )
    running = Up(process, mark)
    try:
        yield running
    finally:
        await running.clean_up()
