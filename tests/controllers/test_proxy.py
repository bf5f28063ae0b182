"""Services as ports of this machine, in front of real sockets."""

import asyncio
import contextlib
import random

import pytest

from stageline_local.apiserver import ApiServer
from stageline_local.client import POD, SERVICE, Client
from stageline_local.ports import PortTaken, free_ports, require_free
from stageline_local.proxy import Door, ServiceProxy, doors, endpoints
from support.embedded import eventually, pod, running

MEBIBYTE = 1 << 20


def service(name="web", port=80, target=7070, **spec):
    spec = {"selector": {"app": "web"}, "ports": [{"port": port, "targetPort": target}], **spec}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def status(address, ready=True):
    condition = {"type": "Ready", "status": str(ready)}
    return {"phase": "Running", "podIP": address, "conditions": [condition]}


def ready_pod(name="a", address="127.0.0.1", ready=True, namespace="default", **metadata):
    made = pod(name, namespace=namespace, labels={"app": "web", "x": "y"})
    made["metadata"] |= metadata
    made["spec"]["containers"][0]["ports"] = [{"name": "grpc", "containerPort": 7070}]
    return {**made, "status": status(address, ready)}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (service(), [Door("default", "web", 80, 1080)]),
        (service(clusterIP="None"), []),
        (service(selector=None), []),
        (service(port=81), []),
    ],
)
def test_doors(obj, expected):
    assert doors(obj, lambda service, port: 1080 if port == 80 else None) == expected


@pytest.mark.parametrize(
    ("target", "there", "expected"),
    [
        (9, [ready_pod()], [("127.0.0.1", 9)]),
        ("grpc", [ready_pod()], [("127.0.0.1", 7070)]),
        ("other", [ready_pod()], []),
        (9, [ready_pod("b", "127.0.0.3"), ready_pod()], [("127.0.0.1", 9), ("127.0.0.3", 9)]),
        (9, [ready_pod(ready=False)], []),
        (9, [ready_pod(deletionTimestamp="now")], []),
        (9, [ready_pod(namespace="other")], []),
        (9, [pod("a", labels={"app": "web"})], []),
        (9, [{**ready_pod(), "metadata": {"name": "a", "namespace": "default"}}], []),
    ],
)
def test_endpoints(target, there, expected):
    assert endpoints(service(target=target), 80, there) == expected


class Web:
    """A door in front of servers that pods stand for, with a real API server behind it."""

    def __init__(self, client, port):
        self.client = client
        self.port = port

    async def add_pod(self, name, address, ready=True):
        made = await self.client.create(POD.place("default"), ready_pod(name))
        await self.set_status(made, status(address, ready))

    async def set_status(self, made, seen):
        await self.client.merge_patch(POD.of(made), {"status": seen}, subresource="status")

    async def dial(self):
        """A connection to the door, once it is open."""
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    return await asyncio.open_connection("127.0.0.1", self.port)
                await asyncio.sleep(0.01)


@pytest.fixture
async def web(request):
    (port,) = free_ports(1)
    api = ApiServer()
    async with Client(await api.start()) as client:
        seconds = getattr(request, "param", 10)
        proxy = ServiceProxy(client, lambda service, number: port, wait_seconds=seconds)
        async with running(proxy):
            yield Web(client, port)
    await api.stop()


@contextlib.asynccontextmanager
async def serving(handler, address="127.17.0.1", port=7070):
    """A server at an address that a pod could have."""

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, address, port)
    async with server:
        yield


def naming(name):
    async def handler(reader, writer):
        writer.write(name.encode())

    return handler


@pytest.fixture
def addresses():
    """Addresses of this test's own, though others run beside it."""
    first = f"127.{random.randint(16, 239)}.{random.randint(0, 255)}"
    return [f"{first}.{last}" for last in (1, 2, 3)]


async def test_callers_are_dealt_to_the_ready_pods_in_turn(web, addresses):
    one, two, three = addresses
    async with (
        serving(naming("one"), one),
        serving(naming("two"), two),
        serving(naming("3"), three),
    ):
        await web.add_pod("a", one)
        await web.add_pod("b", two)
        await web.add_pod("c", three, ready=False)
        await web.client.create(SERVICE.place("default"), service())
        answers = []
        for _ in range(4):
            reader, writer = await web.dial()
            answers.append(await reader.read())
            writer.close()
    assert sorted(answers) == [b"one", b"one", b"two", b"two"]
    assert answers[:2] == answers[2:]


async def test_who_comes_too_early_waits_for_a_pod(web, addresses):
    async with serving(naming("here"), addresses[0]):
        await web.client.create(SERVICE.place("default"), service())
        reader, writer = await web.dial()
        answer = asyncio.create_task(reader.read())
        await asyncio.sleep(0.1)
        assert not answer.done()
        await web.add_pod("a", addresses[0])
        assert await asyncio.wait_for(answer, 2) == b"here"
        writer.close()


@pytest.mark.parametrize("web", [0.3], indirect=True)
async def test_who_waits_too_long_is_let_go(web):
    await web.client.create(SERVICE.place("default"), service())
    reader, writer = await web.dial()
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_dead_pod_is_passed_over(web, addresses):
    async with serving(naming("alive"), addresses[1]):
        await web.add_pod("a", addresses[0])  # nobody listens there
        await web.add_pod("b", addresses[1])
        await web.client.create(SERVICE.place("default"), service())
        for _ in range(2):
            reader, writer = await web.dial()
            assert await asyncio.wait_for(reader.read(), 5) == b"alive"
            writer.close()


async def test_each_side_may_finish_first(web, addresses):
    async def count(reader, writer):
        total = len(await reader.read())
        writer.write(str(total).encode())

    async with serving(count, addresses[0]):
        await web.add_pod("a", addresses[0])
        await web.client.create(SERVICE.place("default"), service())
        reader, writer = await web.dial()
        writer.write(b"x" * MEBIBYTE)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == str(MEBIBYTE).encode()
        writer.close()


async def test_slow_reader_slows_the_writer(web, addresses):
    sent = 0

    async def flood(reader, writer):
        nonlocal sent
        for _ in range(256):
            writer.write(b"x" * MEBIBYTE)
            await writer.drain()
            sent += 1

    async with serving(flood, addresses[0]):
        await web.add_pod("a", addresses[0])
        await web.client.create(SERVICE.place("default"), service())
        reader, writer = await web.dial()
        await reader.readexactly(MEBIBYTE)
        before = -1
        while sent != before:  # until the buffers in between are full
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 100, "what nobody reads is kept in memory"
        writer.close()


async def test_broken_connection_breaks_the_other_side(web, addresses):
    broken = asyncio.Event()

    async def wait_for_the_end(reader, writer):
        writer.write(b"!")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        broken.set()

    async with serving(wait_for_the_end, addresses[0]):
        await web.add_pod("a", addresses[0])
        await web.client.create(SERVICE.place("default"), service())
        reader, writer = await web.dial()
        await reader.readexactly(1)
        writer.transport.abort()
        await asyncio.wait_for(broken.wait(), 5)


async def test_door_closes_with_its_service(web, addresses):
    await web.client.create(SERVICE.place("default"), service())
    _, writer = await web.dial()
    writer.close()
    await web.client.delete(SERVICE.place("default", "web"))

    async def closed():
        with contextlib.suppress(PortTaken):
            require_free(web.port)
            return True

    await eventually(closed, 5, "the end of the door")
