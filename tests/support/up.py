"""`stageline up` as a process: its manifest, its lines, its children, its end."""

import asyncio
import base64
import json
import os
import sys
import textwrap
import zlib
from contextlib import asynccontextmanager

import yaml

from stageline_api.crd import PLURAL
from stageline_api.resource import API_VERSION, KIND
from stageline_local.client import POD, Client, Kind
from stageline_local.ports import free_ports
from stageline_operator.labels import STAGE
from support.processes import processes_marked, until
from support.profiles import dense

PIPELINE_DEPLOYMENT = Kind(API_VERSION, KIND, PLURAL)

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


async def stageline(*arguments):
    """Exit code and stdout of a command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stageline_cli.main", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


def container(pod):
    """The status of the pod's only container."""
    return pod["status"]["containerStatuses"][0]


def worker(folder, code) -> dict[str, str]:
    """The environment in which this code stands in for the worker."""
    package = folder / "worker" / "stageline_worker"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(textwrap.dedent(code))
    return {"PYTHONPATH": str(package.parent)}


def profiled(stage: str) -> str:
    """A worker that knows what a model of six layers weighs; its stages do this."""
    profile = base64.b64encode(zlib.compress(dense(6).model_dump_json().encode())).decode()
    return f"""
import sys, time
if sys.argv[1] != "profile":
    {stage}
with open(sys.argv[sys.argv.index("--termination-log") + 1], "w") as log:
    log.write("{profile}")
"""


class Up:
    """A running `stageline up`. Its process and all that it starts carry MARK."""

    def __init__(self, process, folder):
        self.process = process
        self.folder = folder
        self.mark = str(folder)
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
            line = next((line for line in self.lines if text in line), None)
            assert line or self.process.returncode is None, "it ended"
            return line

        try:
            return await until(found, seconds)
        except AssertionError:
            raise AssertionError(f"no line with {text!r} in {self.lines + self.errors}") from None

    async def status(self):
        """The resource, as `stageline status` has it."""
        code, out = await stageline(
            "status", "tiny", "--state-dir", self.folder / "state", "--output", "json"
        )
        assert code == 0, f"no status: {self.lines}"
        return json.loads(out)

    async def pods(self):
        """The stages' pods, by stage."""
        async with self.api() as client:
            found = await client.list(POD.place("default"))
        labels = [pod["metadata"]["labels"] for pod in found]
        return {
            int(told[STAGE]): pod for told, pod in zip(labels, found, strict=True) if STAGE in told
        }

    def api(self):
        """A client of its API server."""
        path = self.folder / "state" / "tiny" / "kubeconfig"
        return Client(yaml.safe_load(path.read_text())["clusters"][0]["cluster"]["server"])

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
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stageline_cli.main", "up", *map(str, arguments)),
        *("--state-dir", str(folder / "state")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "MARK": str(folder), **env},
    )
    running = Up(process, folder)
    try:
        yield running
    finally:
        await running.clean_up()
