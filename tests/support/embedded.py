"""Parts of the embedded cluster for tests: on any API server, with pods that run tiny scripts."""

import asyncio
import sys
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path

from stageline_local.client import POD, ApiError, Client
from stageline_local.restarts import RestartPolicy

FAST = RestartPolicy(first_delay=0.05, max_delay=0.2, stable_seconds=5.0)
SLEEP = "import time; time.sleep(600)"


def client_of(server, agent="test") -> Client:
    """A client of a server that has a URL, and perhaps a token and a CA file."""
    ca_file = Path(server.ca_file) if server.ca_file else None
    return Client(server.url, token=server.token, ca_file=ca_file, agent=agent)


@asynccontextmanager
async def running(*parts):
    """Every part's `run` runs inside; one that breaks is the test's failure."""

    async def together():
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part.run())

    task = asyncio.create_task(together())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


def script(code: str) -> list[str]:
    """A container's command that runs this code in a bare interpreter."""
    return [sys.executable, "-I", "-S", "-c", textwrap.dedent(code)]


def container(code=SLEEP, name="main", **fields):
    """A container that runs this code."""
    return {"name": name, "image": "none", "command": script(code), **fields}


def pod(name, *containers, namespace="default", labels=None, **spec):
    """A pod of these containers, or of one that sleeps."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"containers": list(containers or (container(),)), **spec},
    }


async def found(client, path):
    """The object, None while there is none."""
    try:
        return await client.get(path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


async def eventually(look, seconds=20.0, what="what was waited for"):
    """The first true result of the coroutine function; fails with a sentence after the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (value := await look()):
        assert loop.time() < deadline, f"{what} did not come true in {seconds} s"
        await asyncio.sleep(0.02)
    return value


class Pods:
    """Makes pods in one namespace, and waits for what becomes of them."""

    def __init__(self, client, namespace="default"):
        self.client = client
        self.namespace = namespace

    async def make(self, name, *containers, **spec):
        """Make a pod."""
        obj = pod(name, *containers, namespace=self.namespace, **spec)
        return await self.client.create(POD.place(self.namespace), obj)

    async def get(self, name):
        """The pod, None while there is none."""
        return await found(self.client, POD.place(self.namespace, name))

    async def until(self, name, condition, seconds=20.0):
        """The pod, once its status makes the condition true."""
        last = None

        async def look():
            nonlocal last
            last = await self.get(name)
            return last and last.get("status") and condition(last["status"]) and last

        try:
            return await eventually(look, seconds)
        except AssertionError:
            raise AssertionError(f"pod {name} stays {last and last.get('status')}") from None

    async def until_gone(self, name, seconds=20.0):
        """Return when there is no pod of this name."""

        async def gone():
            return await self.get(name) is None

        await eventually(gone, seconds, f"the end of pod {name}")

    async def delete(self, name, grace_seconds=None):
        """Ask for the pod's end."""
        await self.client.delete(POD.place(self.namespace, name), grace_seconds=grace_seconds)


def only(status):
    """The status of a pod's only container."""
    (container_status,) = status.get("containerStatuses") or ({"restartCount": 0},)
    return container_status


def is_running(status):
    return "running" in (only(status).get("state") or {})


def is_ready(status):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))


def waits_with(reason):
    """A condition: the only container waits, for this reason."""

    def check(status):
        return ((only(status).get("state") or {}).get("waiting") or {}).get("reason") == reason

    return check


def terminated(status):
    """How the only container ended, None while it has not."""
    return (only(status).get("state") or {}).get("terminated")


def pid_of(pod):
    """The process id of a pod's only container."""
    return int(only(pod["status"])["containerID"].removeprefix("process://"))
