"""Every test of the suite runs twice, unchanged: on our double and on a real kube-apiserver."""

import asyncio
import contextlib
import itertools
import json
import time

import pytest
import yaml

from stageline_api.crd import crd
from stageline_local.apiserver import served
from stageline_local.client import ApiError, Client
from stageline_operator.kinds import CHILDREN, PIPELINE_DEPLOYMENT, POD, SECRET
from support.fakenodes import FakeNodes
from support.faultyproxy import FaultyProxy
from support.kube import DoubleServer, Server
from support.operator import operating

_SECONDS = 20.0
_LOOK_SECONDS = 0.02
_numbers = itertools.count()


@pytest.fixture(scope="session")
def real(real_server):
    """The kube-apiserver of all tests of this process, with the CRD."""
    asyncio.run(_install(real_server.server))
    return real_server


@pytest.fixture(scope="session")
def double():
    """One double for all tests of this process."""
    with served() as api:
        yield DoubleServer(api)


@pytest.fixture(params=["double", "real"])
def api(request):
    """A running API server that has the CRD."""
    return request.getfixturevalue(request.param)


@pytest.fixture
async def world(api):
    """A namespace of the test's own with nodes, and the way on which the operator reaches it."""
    namespace = f"test-{next(_numbers)}"
    server, how = api.server, {"agent": "somebody"}
    how |= {"token": api.server.token, "ca_file": api.server.ca_file or None}
    async with Client(server.url, **how) as client:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await client.create("/api/v1/namespaces", made)
        with FaultyProxy(server) as proxy, _nodes(server) as nodes:
            world = World(api, namespace, client, proxy, nodes)
            yield world
        await world.clean()


class World:
    """What a test of the suite has."""

    def __init__(self, api, namespace, client, proxy, nodes):
        self.api, self.namespace, self.client = api, namespace, client
        self.proxy, self.nodes = proxy, nodes

    def operating(self, **how):
        """The operator, for this namespace, on the faulty way."""
        return operating(Server(self.proxy.url), [self.namespace], **how)

    async def create(self, name="llama", **spec):
        """A PipelineDeployment of two stages."""
        asked = {"model": {"uri": "file:///models/x"}, "pipeline": {"stages": 2}, **spec}
        return await self.client.create(
            PIPELINE_DEPLOYMENT.path(self.namespace),
            {"apiVersion": PIPELINE_DEPLOYMENT.api_version, "kind": PIPELINE_DEPLOYMENT.kind,
             "metadata": {"name": name}, "spec": asked},
        )  # fmt: skip

    async def get(self, kind, name):
        """The object, None when there is none."""
        with contextlib.suppress(ApiError):
            return await self.client.get(kind.path(self.namespace, name))
        return None

    async def list(self, kind):
        """All of a kind, by name."""
        items = await self.client.list(kind.path(self.namespace))
        return {obj["metadata"]["name"]: obj for obj in items}

    async def patch(self, kind, name, body):
        """A merge patch, as a user makes it."""
        return await self.client.merge_patch(kind.path(self.namespace, name), body)

    async def delete(self, kind, name, **how):
        """As a user deletes it."""
        await self.client.delete(kind.path(self.namespace, name), **how)

    async def clean(self):
        """Nothing of a resource is left in the namespace."""
        await _clean(self.client, self.namespace)

    async def everything(self):
        """Names of all children that there are, by kind; router pods are not among them."""
        found = {}
        for kind in CHILDREN:
            names = sorted(name for name, obj in (await self.list(kind)).items() if _is_child(obj))
            if names:
                found[kind.plural] = names
        return found

    async def eventually(self, condition, what, seconds=_SECONDS):
        """The first true value of an async condition."""
        deadline = time.monotonic() + seconds
        while not (value := await condition()):
            assert time.monotonic() < deadline, (
                f"{what}: not so after {seconds} s; {await self.told()}"
            )
            await asyncio.sleep(_LOOK_SECONDS)
        return value

    async def settled(self, name="llama", seconds=_SECONDS):
        """The resource, once it is as its spec asks."""

        async def is_settled():
            resource = await self.get(PIPELINE_DEPLOYMENT, name)
            return resource if resource and _is_settled(resource) else None

        return await self.eventually(is_settled, f"{name} is as its spec asks", seconds)

    async def quiet(self, seconds=0.5):
        """The operator has made no request for so long."""
        deadline = time.monotonic() + _SECONDS
        before, since = len(self.proxy.seen), time.monotonic()
        while time.monotonic() - since < seconds:
            assert time.monotonic() < deadline, f"requests go on: {self.proxy.seen[-20:]}"
            await asyncio.sleep(_LOOK_SECONDS)
            if len(self.proxy.seen) != before:
                before, since = len(self.proxy.seen), time.monotonic()

    async def told(self):
        """The statuses, for a sentence about a failure."""
        resources = await self.list(PIPELINE_DEPLOYMENT)
        return json.dumps({name: obj.get("status") for name, obj in resources.items()}, indent=1)


def conditions(resource):
    """Status of each condition, by its type."""
    told = (resource.get("status") or {}).get("conditions") or []
    return {condition["type"]: condition["status"] for condition in told}


def _is_settled(resource):
    status, true = resource.get("status") or {}, conditions(resource)
    return (
        status.get("observedGeneration") == resource["metadata"]["generation"]
        and true.get("Ready") == "True"
        and true.get("Reconciling") == "False"
        and status.get("updatedReplicas") == status.get("replicas") == resource["spec"]["replicas"]
    )


def _is_child(obj):
    controllers = obj["metadata"].get("ownerReferences") or []
    return any(owner["kind"] == PIPELINE_DEPLOYMENT.kind for owner in controllers)


def _nodes(server):
    return FakeNodes(server.url, token=server.token, ca_file=server.ca_file)


async def _install(server):
    """The CRD, until it is served."""
    async with Client(server.url, token=server.token, ca_file=server.ca_file) as client:
        manifest = yaml.safe_load(yaml.safe_dump(crd()))
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        try:
            made = await client.create(path, manifest)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            made = manifest
        while not _is_established(made):
            await asyncio.sleep(_LOOK_SECONDS)
            made = await client.get(f"{path}/{manifest['metadata']['name']}")


def _is_established(made):
    told = (made.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in told)


async def _clean(client, namespace):
    """The server is everybody's: pods that stay would be run by the next test's nodes."""
    for kind in (PIPELINE_DEPLOYMENT, *CHILDREN, SECRET):
        grace = 0 if kind == POD else None
        for obj in await client.list(kind.path(namespace)):
            path = kind.path(namespace, obj["metadata"]["name"])
            await client.delete(path, grace_seconds=grace)
