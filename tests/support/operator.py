"""The operator in a test's own event loop, against any API server."""

import asyncio
import atexit
import contextlib
import shutil
import tempfile
from functools import cache
from pathlib import Path

from kubernetes.aio.client import Configuration

from stageline_operator import handlers
from stageline_operator.cluster import KubeCluster
from stageline_operator.decide import decide as real_decide
from stageline_operator.metrics import Metrics
from stageline_operator.operator import Operator
from stageline_operator.settings import RenderSettings
from stageline_operator.turn import Turn
from support.certificates import front_pair

STOPS_IN_SECONDS = 5.0


def connection(server):
    """A configuration of the official client for a support.kube.Server."""
    made = Configuration(host=server.url)
    # Where none is named, each of an operator's three clients reads all that the system trusts.
    made.ssl_ca_cert = server.ca_file or str(_one_certificate())
    if server.token:
        made.api_key["BearerToken"] = f"Bearer {server.token}"
    return made


@cache
def _one_certificate():
    folder = Path(tempfile.mkdtemp(prefix="stageline-ca-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "ca.crt").write_bytes(front_pair().certificate)
    return folder / "ca.crt"


@contextlib.asynccontextmanager
async def serving_alone(server, namespaces=(), mine="operator-a"):
    """Hold the Leases until the block ends; gives what holds them."""
    cluster = KubeCluster(connection(server), Metrics().requested)
    turn = Turn(cluster, namespaces, mine)
    try:
        async with asyncio.timeout(STOPS_IN_SECONDS):
            await turn.wait()
        await turn.wait()  # what is there already is renewed
        yield turn
    finally:
        await turn.release()
        await cluster.close()


@contextlib.asynccontextmanager
async def operating(
    server, namespaces=(), *, decide=real_decide, wrap=lambda cluster: cluster, settings=None, **how
):
    """The Operator, watching and reconciling until the block ends; it must end cleanly.

    `wrap` may put something between the operator and its cluster.
    """
    metrics, stop = Metrics(), asyncio.Event()
    cluster = KubeCluster(connection(server), metrics.requested)
    settings = settings or RenderSettings(allow_host_path=True)
    how |= {"namespaces": namespaces, "metrics": metrics}
    operator = Operator(wrap(cluster), decide, settings, **how)

    try:
        await operator.start()
        task = asyncio.create_task(handlers.watch(operator, connection(server), namespaces, stop))
        try:
            yield operator
        finally:
            stop.set()
            async with asyncio.timeout(STOPS_IN_SECONDS):
                await task
    finally:
        await operator.stop()
        await cluster.close()
