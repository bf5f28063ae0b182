"""A client that leaves in the middle of a request has no connection left when it has gone."""

import asyncio
import contextlib
import gc
import socket
import ssl
import threading
import time
import warnings

import pytest

from stageline_local.client import Client
from support.certificates import front_pair, put


@pytest.fixture
def slow_goodbye(tmp_path):
    """A TLS server that answers nothing, and takes its time to say goodbye: its port, its CA."""
    pair = front_pair()
    folder = put(tmp_path / "server", pair.certificate, pair)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with context.wrap_socket(connection, server_side=True) as tls:
                while tls.recv(1 << 16):
                    asked.set()
                time.sleep(0.3)
                with contextlib.suppress(OSError):  # it was not waited for
                    tls.unwrap().close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], folder / "ca.crt", asked
        thread.join(10)


def test_a_request_that_is_given_up_leaves_no_connection_behind(slow_goodbye):
    port, ca_file, asked = slow_goodbye

    async def leaves():
        async with Client(f"https://127.0.0.1:{port}", ca_file=ca_file) as client:
            request = asyncio.create_task(client.get("/x"))
            assert await asyncio.to_thread(asked.wait, 10), "the server was not asked"
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(leaves())
        gc.collect()
    assert not told, f"left open: {[str(one.message) for one in told]}"
